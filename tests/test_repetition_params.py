"""When an output repeats itself: against a look at every pattern; and what is refused."""

from __future__ import annotations

import random
from itertools import product
from typing import Any

import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.params import SamplingParams
from albireo.repetition_params import RepetitionDetectionParams


def repeats(token_ids: list[int], most: int, least: int, count: int) -> bool:
    """As it is defined."""
    return any(
        len(token_ids) >= size * count and token_ids[-size * count :] == token_ids[-size:] * count
        for size in range(max(least, 1), most + 1)
    )


def test_it_ends_where_the_last_tokens_are_one_pattern() -> None:
    random.seed(5)
    for most, least, count in product((1, 2, 3, 7), (0, 1, 2, 3), (2, 3, 5)):
        if least > most:
            continue
        asked = RepetitionDetectionParams(most, least, count)
        for _ in range(300):
            tokens = [random.randrange(2) for _ in range(random.randrange(16))]
            assert asked.ends(tokens) == repeats(tokens, most, least, count), (asked, tokens)
        pattern = list(range(most))
        assert asked.ends([9, *pattern * count])
        assert not asked.ends([9, *pattern * (count - 1)])


def test_an_object_is_the_same_and_none_of_a_size_looks_for_none() -> None:
    asked = {"max_pattern_size": 3, "min_count": 2}
    params = SamplingParams(repetition_detection=asked)  # type: ignore[arg-type]
    assert params.repetition_detection == RepetitionDetectionParams(3, 0, 2)
    assert SamplingParams(repetition_detection={}).repetition_detection is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_pattern_size": 2, "min_count": 1}, "min_count=1 to be at least 2"),
        ({"max_pattern_size": 2, "min_pattern_size": 3, "min_count": 2}, "min_pattern_size=3 to be at most"),
        ({"max_pattern_size": 257, "min_count": 2}, "to be at most 256"),
        ({"max_pattern_size": -1}, "max_pattern_size=-1 to be a whole number"),
        ({"max_pattern_size": 2.5, "min_count": 2}, "max_pattern_size=2.5 to be a whole number"),
        ({"size": 2}, "holds 'size'"),
        (5, "or an object, got int"),
    ],
)
def test_what_is_wrong_is_named(given: Any, words: str) -> None:
    with pytest.raises(InvalidParams, match=f"repetition_detection.*{words}"):
        SamplingParams(repetition_detection=given)


def test_a_beam_search_has_none() -> None:
    from albireo.api.requests.beam_search import beam_sampling

    with pytest.raises(UnsupportedFeature, match="repetition_detection"):
        beam_sampling({"repetition_detection": {"max_pattern_size": 2, "min_count": 2}}, 2)
