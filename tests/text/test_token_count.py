"""Tokens counted while a text comes: as many as the whole has, for each tokenizer, and little is encoded at the end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from albireo.text.token_count import CHUNK, TokenCount
from structured.vocabularies import REAL, tokenizer

PROSE = [
    "First",
    " let",
    " me",
    " think",
    " about",
    " it",
    ".",
    ",",
    "\n\n",
    " The",
    " user's",
    " 12",
    "345",
    " (x",
    ")",
    " don't",
]
CHINESE = ["首先", "，", "我们", "需要", "考虑", "这个问题", "。", "\n\n", "用户", "、", "答案", "：", "12"]
CODE = [
    "def f(",
    "x",
    "):\n",
    "    ",
    "return",
    " x ",
    "+ 1\n",
    "\t",
    "if",
    " ==",
    "\r\n",
    "    # the comment here",
    "{}",
    ";\n\n",
]
ODD = [
    "é",
    "e\u0301",
    "\u0301",
    "世界",
    "🦊",
    "ﬁ",
    "  ",
    " a",
    "a b",
    "<|im_end|>",
    "</s>",
    "<s>",
    "\u00a0",
    "X Y",
    "z  z",
]


class Spy:
    """A tokenizer that notes how long the texts are that it encodes."""

    def __init__(self, real: Any) -> None:
        self.real, self.lengths = real, [0]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        self.lengths.append(len(text))
        return list(self.real.encode(text, add_special_tokens=add_special_tokens))


@pytest.mark.parametrize("name", ["bundled", "tekken", *REAL])
def test_it_is_the_number_of_the_whole(name: str) -> None:
    known, dice = tokenizer(name), random.Random(name)
    for words in (PROSE, CHINESE, CODE, ODD, PROSE + CHINESE + CODE + ODD):
        for size in (3, 10**6):
            text = "".join(dice.choices(words, k=2_000))
            count: Any = TokenCount(known)
            for at in range(0, len(text), size):
                count.push(text[at : at + size])
                if at % 2_001 == 0:
                    assert count.num_tokens() == len(known.encode(text[: at + size], add_special_tokens=False))
            assert count.num_tokens() == len(known.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", ["bundled", "tekken", *REAL])
def test_no_long_text_is_encoded_at_once(name: str) -> None:
    spy: Any = Spy(tokenizer(name))
    count = TokenCount(spy)
    text = "".join(random.Random(3).choices(PROSE, k=20_000))
    for at in range(0, len(text), 5):
        count.push(text[at : at + 5])
    expected = len(spy.real.encode(text, add_special_tokens=False))
    assert count.num_tokens() == expected and max(spy.lengths) <= CHUNK + 200
    assert len(spy.lengths) < 10 * len(text) / CHUNK, "a place is found at once"


def test_without_words_it_is_encoded_at_the_end() -> None:
    spy: Any = Spy(tokenizer("bundled"))
    count = TokenCount(spy)
    text = "0123456789" * 2_000
    count.push(text)
    assert spy.lengths == [0] and count.num_tokens() == len(spy.real.encode(text, add_special_tokens=False))
    assert TokenCount(spy).num_tokens() == 0
