"""A grammar of llguidance's whose states grow with the text."""

from __future__ import annotations

import random

import pytest

from albireo.errors import InvalidParams
from albireo.structured.llguidance.backend import LLGuidance
from albireo.structured_params import StructuredOutputsParams
from structured.vocabularies import tokenizer, vocabulary


def ids(text: str) -> list[int]:
    return tokenizer("bundled").encode(text, add_special_tokens=False)


def test_a_grammar_that_grows_too_large_gives_up_with_the_limit_and_is_compiled_anew_for_the_next() -> None:
    bomb = "(.*a.{30}b|.*b.{29}a)"
    letters = [ids("a")[0], ids("b")[0]]
    chance = random.Random(1)
    backend = LLGuidance(vocabulary(), 60)
    compiled = backend.compile(StructuredOutputsParams(regex=bomb))
    matcher = compiled.matcher()
    output: list[int] = []
    with pytest.raises(InvalidParams, match="too many states"):
        for _ in range(300):
            matcher.allowed(output)
            output.append(chance.choice(letters))
    assert compiled.is_spent()
    assert backend.compile(StructuredOutputsParams(regex=bomb)).matcher().allowed(output[:5])
