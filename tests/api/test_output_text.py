"""Tokens to text: stop strings across tokens, special tokens, lazy reading."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.api.requests.output_text import OutputText
from albireo.params import SamplingParams


def read_all(house: Any, ids: list[int], step: int = 1, **params: Any) -> OutputText:
    text = OutputText(house.tokenizer, SamplingParams(**params), house.toy.ids("p"))
    shown = ""
    for end in range(0, len(ids) + 1, step):
        text.read(ids[:end])
        assert text.text.startswith(shown)
        shown = text.text
    text.read(ids)
    text.end()
    assert text.text.startswith(shown)
    return text


@pytest.mark.parametrize("step", [1, 2, 100])
def test_the_text_is_that_of_all_tokens_however_often_it_is_read(house: Any, step: int) -> None:
    ids = house.toy.ids("Hello", "Ġworld", " naïve ", "日本")
    assert read_all(house, ids, step).text == "Hello world naïve 日本"


def test_bytes_of_an_open_character_come_out_at_the_end(house: Any) -> None:
    ids = house.toy.ids("a日")[:-1]
    text = OutputText(house.tokenizer, SamplingParams(), [])
    text.read(ids)
    assert text.text == "a"
    text.end()
    assert text.text == "a\ufffd"


@pytest.mark.parametrize("stop", ["lo w", "o wor", "Hello world", "d", ["zzz", "ld"]])
@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_across_tokens_cuts_the_text(house: Any, stop: Any, include: bool) -> None:
    ids = house.toy.ids("Hello", "Ġworld", "!")
    text = read_all(house, ids, stop=stop, include_stop_str_in_output=include)
    first = stop if isinstance(stop, str) else stop[-1]
    end = "Hello world!".index(first)
    assert text.matched == first
    assert text.text == "Hello world!"[: end + len(first) * include]


def test_what_could_begin_a_stop_string_waits(house: Any) -> None:
    text = OutputText(house.tokenizer, SamplingParams(stop="world!"), [])
    text.read(house.toy.ids("Hello", "Ġworld"))
    assert (text.text, text.matched) == ("Hello ", None)
    text.end()
    assert text.text == "Hello world"


def test_before_min_tokens_stop_strings_are_text(house: Any) -> None:
    ids = house.toy.ids("ab", "ab", "ab")
    assert read_all(house, ids, stop="b").text == "a"
    # The second token is the second one out: with min_tokens=2 the first that counts is the fourth.
    assert read_all(house, ids, stop="b", min_tokens=1).text == "a"
    assert read_all(house, ids, stop="b", min_tokens=2).text == "aba"


def test_special_tokens_are_text_only_when_asked_for(house: Any) -> None:
    ids = house.toy.ids("Hello", "<end>", "!")
    assert read_all(house, ids).text == "Hello!"
    assert read_all(house, ids, skip_special_tokens=False).text == "Hello<end>!"
