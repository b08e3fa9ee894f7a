"""Texts in parts, each encoded once: the ids of the whole, for each tokenizer, and bounded memory."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tokenizers

from albireo.errors import InvalidParams
from albireo.text.segments import MIN_CHARS, Segments
from albireo.text.tokenizer import Tokenizer
from albireo.text.tokenizer_files import TokenizerFiles
from structured.vocabularies import REAL, tokenizer

WORDS = [
    "Hello",
    " there",
    "\n",
    "\n\n",
    " ",
    "  ",
    "é",
    "e\u0301",
    "\u0301",
    "世界",
    "🦊",
    "'s",
    "12345",
    "\t",
    "ﬁ",
    "<|",
    "|>",
    "<s",
    "x",
]


@pytest.mark.parametrize("name", ["bundled", "tekken", *REAL])
def test_parts_have_the_ids_of_the_whole(name: str) -> None:
    known, dice = tokenizer(name), random.Random(name)
    segments = Segments(known)
    marks = [*known.added_tokens(), "<|im_start|>user", "</s>"]
    for _ in range(30):
        text = "".join(dice.choices([*WORDS, *dice.choices(marks, k=6)], k=400)).ljust(MIN_CHARS)
        expected = known.encode(text, add_special_tokens=False)
        assert segments.encode(text) == expected
        assert segments.encode(text) == expected, "from memory"
        assert segments.encode(text + "more")[: len(expected) - 8] == expected[:-8]


def test_tokenizers_whose_tokens_cut_a_text_remember_its_parts() -> None:
    """Phi-3's tokens take blanks along, GPT-2's one is found when a text was normalized."""
    for name in ("bundled", "tekken", *(each for each in REAL if isinstance(each, str))):
        assert (Segments(tokenizer(name)).pattern is None) is (name in ("gpt2", "phi-3-mini")), name


def test_a_tokenizer_that_remembers_what_was_before_a_token_is_asked_for_the_whole() -> None:
    """A Metaspace that puts a space in front of a text, and of nothing behind a special token."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "▁": 1, "▁a": 2, "<s>": 3}, [("▁", "a")]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    made.add_special_tokens([tokenizers.AddedToken("<s>", normalized=False)])
    files = TokenizerFiles(Path("tokenizer.json"), {}, (), (), None, {})
    known = Tokenizer(made, files)
    assert known.encode("a<s>a") == [2, 3, 0]
    segments = Segments(known)
    text = "a<s>a" * MIN_CHARS
    assert segments.pattern is None and segments.encode(text) == known.encode(text, add_special_tokens=False)


def test_memory_is_bounded_and_the_oldest_goes() -> None:
    known = tokenizer("bundled")
    mark = known.bos_token
    assert mark is not None
    segments = Segments(known, max_kept_chars=10_000)
    texts = [mark.join(f"{i} {j} " + "word " * 150 for j in range(4)) for i in range(12)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(segments.encode, texts))
    assert found == [known.encode(text, add_special_tokens=False) for text in texts]
    assert 0 < segments.num_kept_chars <= 10_000
    with_salt = Segments(known)
    for salt, num_kept in (("a", 1), ("a", 1), ("b", 2), (None, 3)):
        assert with_salt.encode("word " * 400, salt) == known.encode("word " * 400, add_special_tokens=False)
        assert with_salt.num_kept_chars == num_kept * 2_000
    long = "a " * 10_000
    assert segments.encode(long) == known.encode(long, add_special_tokens=False)
    assert segments.num_kept_chars <= 10_000


def test_half_a_letter_is_told_as_by_the_tokenizer() -> None:
    with pytest.raises(InvalidParams, match="Unicode"):
        Segments(tokenizer("bundled")).encode("a" * MIN_CHARS + "\ud800")
