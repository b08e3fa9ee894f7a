"""Masks, bias and penalties: each against its definition or transformers, and the order between them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from albireo.params import SamplingParams
from albireo.sampling.penalties import adjusted_logits, penalise
from albireo.step import SampleTask

INF = math.inf


def adjusted(
    logits: Sequence[float],
    prompt: Sequence[int] = (),
    output: Sequence[int] = (),
    stop: tuple[int, ...] = (),
    **params: Any,
) -> list[float]:
    row = np.array(logits, np.float32)
    before = row.copy()
    task = SampleTask(0, SamplingParams(**params), 0, prompt, output, stop)
    changed = adjusted_logits(row, task)
    assert np.array_equal(row, before), "the caller's row was written to"
    return [float(x) for x in changed]


def test_nothing_asked_costs_no_copy() -> None:
    row = np.zeros(4, np.float32)
    task = SampleTask(0, SamplingParams(top_p=0.5, temperature=0.7, min_tokens=2), 0, [1], [2])
    assert adjusted_logits(row, task) is row


@pytest.mark.parametrize("penalty", [0.5, 1.1, 2.0])
def test_repetition_equals_transformers(penalty: float) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(3)
    for _ in range(20):
        row = rng.standard_normal(300).astype(np.float32)
        prompt, output = rng.integers(0, 300, 40).tolist(), rng.integers(0, 300, 30).tolist()
        theirs = process.RepetitionPenaltyLogitsProcessor(penalty)(
            torch.tensor([prompt + output]), torch.from_numpy(row.copy())[None]
        )[0].numpy()
        penalise(row, SamplingParams(repetition_penalty=penalty), prompt, output)
        assert row.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("window", [1, 20, 30, 31, 55, 70, 5000])
def test_penalties_of_a_window_see_the_last_tokens_of_prompt_and_output(window: int) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(5)
    row = rng.standard_normal(100).astype(np.float32)
    prompt, output = rng.integers(0, 100, 40).tolist(), rng.integers(0, 100, 30).tolist()
    seen = (prompt + output)[-window:]
    theirs = process.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([seen]), torch.from_numpy(row.copy())[None])
    expected = theirs[0].numpy().copy()
    for token_id, count in Counter(seen).items():
        expected[token_id] = expected[token_id] - np.float32(0.7) * np.float32(count) - np.float32(-0.3)
    asked = {"repetition_penalty": 1.3, "frequency_penalty": 0.7, "presence_penalty": -0.3, "penalty_window": window}
    penalise(row, SamplingParams(**asked), prompt, output)
    assert row.tobytes() == expected.tobytes()


def test_frequency_and_presence_count_the_output_only() -> None:
    rng = np.random.default_rng(4)
    row = rng.standard_normal(50).astype(np.float32)
    output = rng.integers(0, 20, 60).tolist()
    expected = row.copy()
    # https://platform.openai.com/docs/api-reference: mu[j] - c[j] * frequency - (c[j] > 0) * presence
    for token_id, count in Counter(output).items():
        expected[token_id] = expected[token_id] - np.float32(0.7) * np.float32(count) - np.float32(-0.3)
    penalise(row, SamplingParams(frequency_penalty=0.7, presence_penalty=-0.3), list(range(50)), output)
    assert row.tobytes() == expected.tobytes()


def test_penalties_accept_any_sequence_and_no_output() -> None:
    everything = {"frequency_penalty": 1.0, "presence_penalty": 1.0, "repetition_penalty": 2.0}
    assert adjusted([4, 4, -4], prompt=range(1), output=(), **everything) == [2, 4, -4]
    assert adjusted([4, 4, -4], prompt=(), output=(2, 2), **everything) == [4, 4, -4 * 2 - 2 - 1]


def test_allowed_token_ids() -> None:
    assert adjusted([1, 2, 3, 4], allowed_token_ids=[2, 0, 2]) == [1, -INF, 3, -INF]


@pytest.mark.parametrize(
    ("words", "output", "masked"),
    [
        (((3,),), [], {3}),
        (((1, 3),), [], set()),
        (((1, 3),), [1], {3}),
        (((1, 3),), [1, 2], set()),
        (((0, 1, 3),), [1], set()),
        (((0, 1, 3),), [2, 0, 1], {3}),
        (((0, 1, 3), (1, 2), (2,)), (0, 1), {3, 2}),
    ],
)
def test_bad_words(words: tuple[tuple[int, ...], ...], output: Sequence[int], masked: set[int]) -> None:
    # The prompt ends in the words' beginnings, and does not count.
    got = adjusted([9, 8, 7, 6], prompt=[0, 1], output=output, bad_words=["w"], bad_words_token_ids=words)
    assert {i for i, x in enumerate(got) if x == -INF} == masked


def test_min_tokens_masks_stop_ids_until_they_are_out() -> None:
    def masked(num_output: int) -> list[int]:
        got = adjusted([1, 1, 1, 1], output=[0] * num_output, stop=(1, 3, 999), min_tokens=2)
        return [i for i, x in enumerate(got) if x == -INF]

    assert [masked(num) for num in range(4)] == [[1, 3], [1, 3], [], []]


def test_order_masks_come_before_bias() -> None:
    got = adjusted(
        [1, 1, 1, 1],
        stop=(1,),
        min_tokens=1,
        allowed_token_ids=[0, 1, 2],
        bad_words=["w"],
        bad_words_token_ids=((2,),),
        logit_bias={0: 5.0, 1: 5.0, 2: 5.0, 3: 5.0},
    )
    assert got == [6, -INF, -INF, -INF]


def test_order_bias_then_repetition_then_frequency_and_presence() -> None:
    # (1 - 2) < 0 is multiplied; repetition before the bias would give 1 / 2 - 2 = -1.5.
    assert adjusted([1.0], prompt=[0], logit_bias={0: -2.0}, repetition_penalty=2.0) == [-2.0]
    # 1 / 2 - 2 - 1; the others first would give (1 - 2 - 1) * 2 = -4.
    got = adjusted([1.0], output=[0], repetition_penalty=2.0, frequency_penalty=2.0, presence_penalty=1.0)
    assert got == [-2.5]
