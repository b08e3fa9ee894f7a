"""Log-probabilities and ranks are those that the host reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.backends.cuda.kernels.top_logprobs import top_logprobs, top_logprobs_workspace
from albireo.backends.cuda.sampling import token_logprobs
from albireo.graph.ops import TOP_LOGITS
from albireo.sampling import logprobs as host
from albireo.step import TokenLogprobs


def reported(logits: np.ndarray, rows: list[int], tokens: list[int], nums: list[int]) -> list[TokenLogprobs]:
    num_rows, vocab = logits.shape
    given = torch.from_numpy(logits)
    ids, values = torch.empty((num_rows, TOP_LOGITS), dtype=torch.int32), torch.empty((num_rows, TOP_LOGITS))
    counts = torch.full((num_rows,), TOP_LOGITS, dtype=torch.int32)
    top(given, counts, ids, values, torch.empty(top_workspace(num_rows, vocab), dtype=torch.int64))
    logprobs = torch.empty((len(rows), 1 + TOP_LOGITS), dtype=torch.float64)
    ranks = torch.empty((len(rows), 1 + TOP_LOGITS), dtype=torch.int32)
    num_partial, num_above = top_logprobs_workspace(len(rows), vocab)
    top_logprobs(
        given,
        torch.tensor(rows, dtype=torch.int32),
        torch.tensor(tokens, dtype=torch.int32),
        values[rows],
        logprobs,
        ranks,
        torch.empty(num_partial, dtype=torch.float64),
        torch.empty(num_above, dtype=torch.int32),
    )
    return [
        token_logprobs(token, num, ids[row].numpy(), logprobs[i].numpy(), ranks[i].numpy())
        for i, (row, token, num) in enumerate(zip(rows, tokens, nums, strict=True))
    ]


@pytest.mark.parametrize("vocab", [1, 60, 5000])
def test_they_are_those_of_the_host(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    logits = (rng.standard_normal((4, vocab)) * 6).astype(np.float32)
    logits[1] = np.round(logits[1])
    logits[2, 1:] = -np.inf
    rows = [0, 1, 1, 2, 3]
    tokens = [0, *rng.integers(0, vocab, 2).tolist(), 0, int(logits[3].argmax())]
    nums = [0, 5, 64, 3, 20]
    for ours, row, token, num in zip(reported(logits, rows, tokens, nums), rows, tokens, nums, strict=True):
        theirs = host.token_logprobs(logits[row], token, num, "it")
        assert ours.token_ids == theirs.token_ids
        assert ours.ranks == theirs.ranks
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, rtol=1e-13, atol=1e-13)


def test_a_row_does_not_depend_on_the_others() -> None:
    logits = np.random.default_rng(2).standard_normal((3, 4500)).astype(np.float32)
    together = reported(logits, [0, 1, 2], [5, 6, 7], [4, 4, 4])
    assert together == [reported(logits[i : i + 1], [0], [5 + i], [4])[0] for i in range(3)]
