"""The end of thinking in the sampler: it alone is left, whatever else is asked; a grammar has the last word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError
from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask

VOCAB, END = 21, 9


class After:
    """A budget of so many tokens, whatever they are."""

    def __init__(self, num: int) -> None:
        self.num = num

    def forced(self, output_token_ids: Sequence[int]) -> int | None:
        return END if len(output_token_ids) == self.num else None


class Allows:
    eos_token_ids = (20,)

    def __init__(self, *ids: int) -> None:
        bits = np.zeros(VOCAB, np.uint8)
        bits[list(ids)] = 1
        self._mask = np.packbits(bits, bitorder="little").tobytes()

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return self._mask


def draw(output: Sequence[int], row: Any = None, matcher: Any = None, seed: int = 0, **params: Any) -> Any:
    asked = SamplingParams(**{"thinking_token_budget": 2, **params})
    task = SampleTask(3, asked, seed, [1, 2], output, (20,), matcher, After(2))
    logits = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32) if row is None else row
    before = logits.copy()
    try:
        return Sampler(VOCAB).sample_one(logits, task)
    finally:
        assert np.array_equal(logits, before, equal_nan=True)


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0},
        {"temperature": 2.0, "top_k": 3, "top_p": 0.5, "min_p": 0.1},
        {"allowed_token_ids": [4, 5]},
        {"bad_words": ["x"], "bad_words_token_ids": ((END,),)},
        {"logit_bias": {END: -100.0, 4: 100.0}, "repetition_penalty": 1.3},
        {"stop_token_ids": [END], "min_tokens": 9},
        {"temperature": 0, "logprobs": 1},
    ],
)
def test_nothing_else_is_drawn_when_it_is_time(params: dict[str, Any]) -> None:
    assert {draw([4, 5], seed=seed, **params).token_id for seed in range(20)} == {END}


def test_before_and_after_it_changes_nothing() -> None:
    for output in ([], [4], [4, 5, END]):
        for params in ({"temperature": 0}, {"temperature": 1.0, "top_p": 0.9}):
            plain = SampleTask(3, SamplingParams(**params), 7, [1, 2], output, (20,))
            logits = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32)
            assert draw(output, seed=7, **params).token_id == Sampler(VOCAB).sample_one(logits, plain).token_id


def test_log_probabilities_are_those_of_the_model() -> None:
    found = draw([4, 5], logprobs=2)
    row = np.random.default_rng(1).standard_normal(VOCAB).astype(np.float32).astype(np.float64)
    assert found.logprobs.logprobs[0] == pytest.approx(row[END] - np.log(np.exp(row).sum()))
    assert len(found.logprobs.token_ids) == 3


def test_a_grammar_has_the_last_word() -> None:
    form = {"structured_outputs": {"json_object": True}}
    assert draw([4, 5], matcher=Allows(3, END, 7), **form).token_id == END
    assert {draw([4, 5], matcher=Allows(3, 7), seed=seed, **form).token_id for seed in range(30)} == {3, 7}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_damaged_row_is_told_all_the_same(value: float) -> None:
    row = np.zeros(VOCAB, np.float32)
    row[4] = value
    with pytest.raises(InvariantError, match="damaged"):
        draw([4, 5], row)


def test_a_budget_needs_all_logits() -> None:
    assert SamplingParams(temperature=0).num_top == 1
    asked = SamplingParams(temperature=0, thinking_token_budget=5)
    assert (asked.num_top, asked.draws_from_raw) == (0, False)
    assert SamplingParams(thinking_token_budget=-1) == SamplingParams()
