"""Grammars in the sampler: only what is allowed is drawn, whatever else is asked, and ends are put off within it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, InvariantError
from albireo.params import SamplingParams
from albireo.sampling.penalties import adjusted_logits
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask

VOCAB, EOS, STOP = 21, 20, 7


class Fixed:
    """A matcher that always allows the same ids."""

    eos_token_ids = (EOS,)

    def __init__(self, ids: Sequence[int], num_bits: int = VOCAB) -> None:
        bits = np.zeros(num_bits, np.uint8)
        bits[list(ids)] = 1
        self._mask = np.packbits(bits, bitorder="little").tobytes()

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return self._mask


class GivesUp(Fixed):
    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        raise InvalidParams("too many states")


def task(matcher: Fixed, output: Sequence[int] = (), seed: int = 0, **params: Any) -> SampleTask:
    fields = {"structured_outputs": {"json_object": True}, **params}
    return SampleTask(3, SamplingParams(**fields), seed, [1, 2], output, (STOP, EOS), matcher)


def row(seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(VOCAB).astype(np.float32) * 3


def finite(values: Any) -> set[int]:
    return set(np.flatnonzero(np.isfinite(values)).tolist())


def test_what_the_grammar_leaves_keeps_its_logit_and_the_rest_is_masked() -> None:
    logits = row()
    before = logits.copy()
    changed = adjusted_logits(logits, task(Fixed([0, 8, 9, 20])))
    assert finite(changed) == {0, 8, 9, 20} and np.array_equal(logits, before)
    assert np.array_equal(changed[[0, 8, 9, 20]], before[[0, 8, 9, 20]])


def test_bits_beyond_the_row_are_not_looked_at_and_missing_ones_are_a_bug() -> None:
    assert finite(adjusted_logits(row(), task(Fixed([5, 30], num_bits=64)))) == {5}
    with pytest.raises(InvariantError, match="sequence 3: a mask of 2 bytes for 21 tokens"):
        adjusted_logits(row(), task(Fixed([5], num_bits=16)))


@pytest.mark.parametrize(
    ("allowed", "params", "left"),
    [
        ([4, EOS], {}, {4, EOS}),
        ([4, EOS], {"min_tokens": 1}, {4}),
        ([4, STOP, EOS], {"min_tokens": 1}, {4}),
        ([4, STOP, EOS], {"ignore_eos": True}, {4, STOP}),
        ([EOS], {"min_tokens": 1, "ignore_eos": True}, {EOS}),
        ([STOP], {"min_tokens": 1}, {STOP}),
        ([4, 5, EOS], {"allowed_token_ids": [5, EOS, 6], "min_tokens": 1}, {5}),
        ([4, 5, EOS], {"bad_words": ["x"], "bad_words_token_ids": ((4,),)}, {5, EOS}),
    ],
)
def test_the_end_waits_for_min_tokens_and_ignore_eos_while_the_grammar_can_go_on(
    allowed: list[int], params: dict[str, Any], left: set[int]
) -> None:
    assert finite(adjusted_logits(row(), task(Fixed(allowed), **params))) == left


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0},
        {"temperature": 1.0},
        {"temperature": 1.7, "top_k": 2},
        {"temperature": 0.8, "top_p": 0.5, "min_p": 0.02},
        {"temperature": 1.0, "repetition_penalty": 1.5, "presence_penalty": 0.4, "logit_bias": {3: 50.0, 4: 1.0}},
        {"temperature": 1.0, "logprobs": 2},
    ],
)
def test_only_what_is_allowed_is_drawn_whatever_else_is_asked(params: dict[str, Any]) -> None:
    sampler, allowed = Sampler(VOCAB), [2, 4, 6, 19]
    drawn = {
        sampler.sample_one(row(seed % 5), task(Fixed(allowed), [4, 6], seed, **params)).token_id for seed in range(60)
    }
    assert drawn <= set(allowed) and (len(drawn) > 1)


@pytest.mark.parametrize("allowed", [[1, 5, 11, 13], [*range(1, 20, 2), 0, 2, 4]])
def test_the_draw_has_the_distribution_of_what_is_left(allowed: list[int]) -> None:
    logits = row(3)
    weights = np.exp(logits[allowed].astype(np.float64))
    expected = weights / weights.sum()
    num = 4000
    counts = np.zeros(VOCAB)
    for seed in range(num):
        counts[Sampler(VOCAB).sample_one(logits, task(Fixed(allowed), seed=seed)).token_id] += 1
    # Five standard deviations of a binomial.
    assert np.all(np.abs(counts[allowed] / num - expected) < 5 * np.sqrt(expected * (1 - expected) / num))


def test_log_probabilities_are_those_of_the_model() -> None:
    logits = row(1)
    found = Sampler(VOCAB).sample_one(logits, task(Fixed([int(logits.argmin())]), logprobs=0))
    total = np.log(np.exp(logits.astype(np.float64)).sum())
    assert found.logprobs is not None and found.logprobs.ranks == [VOCAB]
    assert found.logprobs.logprobs[0] == pytest.approx(float(logits.min()) - total)


def test_a_grammar_that_gives_up_names_the_sequence() -> None:
    with pytest.raises(InvalidParams, match="sequence 3: too many states"):
        Sampler(VOCAB).sample_one(row(), task(GivesUp([1])))
    with pytest.raises(InvalidParams, match=r"sequence 3: allowed_token_ids, structured_outputs, .* leave none"):
        Sampler(VOCAB).sample_one(row(), task(Fixed([4]), allowed_token_ids=[5]))


def test_a_neighbour_without_a_grammar_is_drawn_as_ever() -> None:
    plain = SampleTask(9, SamplingParams(temperature=0.9, seed=1), 1, [1], [])
    logits = np.stack([row(0), row(1)])
    alone = Sampler(VOCAB).sample(logits[1:], [plain], [0])
    beside = Sampler(VOCAB).sample(logits, [task(Fixed([2])), plain], [0, 1])
    assert [token.token_id for token in beside] == [2, alone[0].token_id]
