"""Parameters that only the vocabulary can refuse."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.errors import InvalidParams
from albireo.params import SamplingParams
from albireo.sampling.validation import validate


def test_edges_are_accepted() -> None:
    validate(SamplingParams(), 10)
    validate(
        SamplingParams(
            allowed_token_ids=[0, 9],
            stop_token_ids=[9],
            logit_bias={9: -float("inf"), 0: 1e30},
            bad_words=["w"],
            bad_words_token_ids=((0, 9),),
            logprobs=10,
            prompt_logprobs=-1,
            top_k=1000,
            repetition_penalty=1e-30,
        ),
        10,
    )
    validate(SamplingParams(repetition_penalty=1e30), 10)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"allowed_token_ids": [3, 10, 12]}, ["allowed_token_ids", ": 10, 12; ids are 0 to 9"]),
        ({"allowed_token_ids": list(range(20))}, ["10, 11, 12, 13, 14 and 5 more"]),
        ({"stop_token_ids": [10]}, ["stop_token_ids", "10"]),
        ({"logit_bias": {10: 1.0}}, ["logit_bias", "10"]),
        ({"logit_bias": {1: float("inf")}}, ["logit_bias", "token 1", "inf"]),
        ({"logit_bias": {1: 1e39}}, ["logit_bias", "1e+39"]),
        ({"repetition_penalty": 1e-300}, ["repetition_penalty=1e-300", "1e-30 to 1e+30"]),
        ({"repetition_penalty": 1e31}, ["repetition_penalty=1e+31"]),
        ({"bad_words": ["w"], "bad_words_token_ids": ((1, 10),)}, ["bad_words", "10"]),
        ({"bad_words": ["w"], "bad_words_token_ids": ((1, -1),)}, ["bad_words", "-1"]),
        ({"bad_words": ["w"], "bad_words_token_ids": ((),)}, ["bad_words", "without tokens"]),
        ({"logprobs": 11}, ["logprobs=11", "10 tokens"]),
        ({"prompt_logprobs": 11}, ["prompt_logprobs=11"]),
    ],
)
def test_refused_with_the_numbers(params: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InvalidParams) as caught:
        validate(SamplingParams(**params), 10)
    for word in words:
        assert word in str(caught.value)
