"""Reported log-probabilities against torch, ranks against the definition."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.errors import InvariantError
from albireo.sampling.logprobs import prompt_logprobs, token_logprobs


@pytest.mark.parametrize("num", [0, 1, 5, 300, 10**6, -1])
def test_prompt_logprobs_equal_torch(num: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((12, 300)) * np.array([[0.1], [3.0], [30.0]] * 4)).astype(np.float32)
    targets = rng.integers(0, 300, 11).tolist()
    expected = torch.log_softmax(torch.from_numpy(logits), dim=-1)
    got = prompt_logprobs(logits, targets, num)
    assert len(got) == len(targets)
    for target, row, entry in zip(targets, expected, got, strict=False):
        assert entry.token_ids[0] == target
        np.testing.assert_allclose(entry.logprobs, row[entry.token_ids].numpy(), rtol=1e-5, atol=1e-5)
        assert entry.ranks[0] == 1 + int((row > row[target]).sum())
        size = 300 if num < 0 else min(num, 300)
        best = torch.topk(row, size).indices.tolist()
        assert entry.token_ids[1:] == [i for i in best if i != target]
        assert entry.ranks[1:] == [rank for rank, i in enumerate(best, 1) if i != target]


def test_a_prompt_without_targets_has_none() -> None:
    for num in (0, 5, -1):
        assert prompt_logprobs(np.zeros((2, 7), np.float32), [], num) == []


def test_ties_share_a_rank_and_come_by_lowest_id() -> None:
    row = np.array([1, 2, 1, 2, 0, 1], np.float32)
    assert token_logprobs(row, 5, 4, "it").token_ids == [5, 1, 3, 0, 2]
    assert token_logprobs(row, 5, 4, "it").ranks == [3, 1, 1, 3, 3]
    assert token_logprobs(row, 0, -1, "it").token_ids == [0, 1, 3, 2, 5, 4]
    assert token_logprobs(row, 0, -1, "it").ranks == [3, 1, 1, 3, 3, 6]


def test_tokens_that_are_named_follow_once_each() -> None:
    row = np.array([1, 2, 1, 3, 0, 1], np.float32)
    everything = token_logprobs(row, 0, -1, "it")
    entry = token_logprobs(row, 0, 1, "it", [4, 3, 0, 4, 5])
    assert entry.token_ids == [0, 3, 4, 5]
    places = [everything.token_ids.index(token) for token in entry.token_ids]
    assert entry.logprobs == [everything.logprobs[place] for place in places]
    assert entry.ranks == [3, 1, 6, 3]


def test_many_ties_keep_their_order() -> None:
    row = np.random.default_rng(0).integers(0, 5, 5000).astype(np.float32)
    expected = sorted(range(row.size), key=lambda i: (-row[i], i))
    for num in (10, 700, 3000):
        entry = token_logprobs(row, expected[0], num, "it")
        assert entry.token_ids == expected[:num]
        assert entry.ranks == [1 + int((row > row[i]).sum()) for i in expected[:num]]


def test_stable_for_large_and_masked_logits() -> None:
    row = np.array([3e38, 3e38, -np.inf], np.float32)
    entry = token_logprobs(row, 2, 2, "it")
    assert entry.logprobs[0] == -np.inf and entry.ranks == [3, 1, 1]
    row = np.array([1e4, 1e4 - 1, -1e4], np.float32)
    assert token_logprobs(row, 0, 0, "it").logprobs == pytest.approx([-np.log1p(np.exp(-1))], abs=1e-9)


def test_row_is_not_written_to() -> None:
    row = np.arange(10, dtype=np.float32)
    row.flags.writeable = False
    assert len(token_logprobs(row, 3, 4, "it").token_ids) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_damaged_rows_are_named(bad: float) -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = bad
    with pytest.raises(InvariantError, match="prompt row 1"):
        prompt_logprobs(logits, [0, 0], 0)
    assert len(prompt_logprobs(logits, [0], 0)) == 1
