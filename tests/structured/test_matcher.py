"""The state of a sequence is a function of its output tokens."""

from __future__ import annotations

import random

import pytest

from albireo.errors import InvalidParams
from structured.vocabularies import allowed_ids, constraint, tokenizer


def ids(text: str) -> list[int]:
    return tokenizer("bundled").encode(text, add_special_tokens=False)


TEXT = '{"a": [1, 2, {"b": "c d"}]}'


def test_a_fresh_matcher_and_one_that_went_along_say_the_same() -> None:
    compiled = constraint(json_object=True)
    along = compiled.matcher()
    output = ids(TEXT)
    masks = [along.allowed(output[:count]) for count in range(len(output) + 1)]
    for count in (0, 3, len(output) // 2, len(output)):
        assert compiled.matcher().allowed(output[:count]) == masks[count]
        assert along.allowed(output[:count]) == masks[count], "asked again, and back in the past"


def test_matchers_of_one_constraint_do_not_disturb_each_other() -> None:
    compiled = constraint(choice=["one", "two"])
    one, two = compiled.matcher(), compiled.matcher()
    one.allowed(ids("one"))
    assert allowed_ids(two, ids("tw")) and allowed_ids(one, ids("one")) == list(one.eos_token_ids)


def test_tokens_that_do_not_follow_the_grammar_are_told_and_do_no_lasting_harm() -> None:
    matcher = constraint(regex="abc").matcher()
    with pytest.raises(InvalidParams, match=r"cannot go on with token \d+ after 0 output tokens: it does not follow"):
        matcher.allowed(ids("x"))
    assert allowed_ids(matcher, ids("a"))


def test_a_grammar_that_grows_too_large_gives_up_with_the_limit_and_is_compiled_anew_for_the_next() -> None:
    bomb = "(.*a.{30}b|.*b.{29}a)"
    letters = [ids("a")[0], ids("b")[0]]
    chance = random.Random(1)
    compiled = constraint(regex=bomb)
    matcher = compiled.matcher()
    output: list[int] = []
    with pytest.raises(InvalidParams, match="too many states"):
        for _ in range(300):
            matcher.allowed(output)
            output.append(chance.choice(letters))
    assert compiled.is_spent()
    assert constraint(regex=bomb).matcher().allowed(output[:5])
