"""top finds what a stable sort of each row finds, whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.top import top, top_workspace
from albireo.graph.op_numbers import TOP_LOGITS

Found = tuple[np.ndarray, np.ndarray]


def found(logits: np.ndarray, counts: list[int]) -> Found:
    rows, vocab = logits.shape
    ids = torch.full((rows, TOP_LOGITS), 77, dtype=torch.int32)
    values = torch.full((rows, TOP_LOGITS), 7.0)
    workspace = torch.full((top_workspace(rows, vocab),), 123456789 << 30)
    padded = torch.full((rows, vocab + 3), torch.inf)
    padded[:, :vocab] = torch.from_numpy(logits)
    top(padded[:, :vocab], torch.tensor(counts, dtype=torch.int32), ids, values, workspace)
    return ids.numpy(), values.numpy()


def wanted(logits: np.ndarray, counts: list[int]) -> Found:
    ids = np.full((len(logits), TOP_LOGITS), -1, np.int32)
    values = np.full((len(logits), TOP_LOGITS), -np.inf, np.float32)
    for row, (x, count) in enumerate(zip(logits, counts, strict=True)):
        best = np.lexsort((-x, ~np.isnan(x)))[:count]
        ids[row, : len(best)], values[row, : len(best)] = best, x[best]
    return ids, values


def check(logits: np.ndarray, counts: list[int]) -> None:
    for ours, theirs in zip(found(logits, counts), wanted(logits, counts), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("vocab", [1, 5, 65, 4096, 4100, 9000])
def test_the_best_come_first(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    counts = [1, 2, 40, 64, 65, 0]
    check(rng.standard_normal((len(counts), vocab)).astype(np.float32) * 8, counts)


@pytest.mark.parametrize("vocab", [70, 9000])
def test_of_equals_the_lowest_id_comes_first(vocab: int) -> None:
    rng = np.random.default_rng(4)
    logits = rng.integers(-2, 3, (7, vocab)).astype(np.float32)
    logits[1] = 0.0
    logits[2] = np.where(rng.random(vocab) < 0.5, 0.0, -0.0)
    logits[3, : vocab // 2] = -np.inf
    logits[4] = -np.inf
    check(logits, [65, 65, 33, 65, 5, 1, 2])


def test_what_is_no_number_comes_first() -> None:
    logits = np.zeros((6, 5000), np.float32)
    logits[:, 17] = np.inf
    logits[0, [4, 4999]] = np.nan
    logits[1] = np.nan
    logits[2, 4500] = -np.nan
    logits[3, 9] = np.finfo(np.float32).max
    logits[4, :] = -np.inf
    check(logits, [3, 65, 1, 4, 2, 1])


def test_a_row_does_not_depend_on_the_others() -> None:
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((5, 4200)).astype(np.float32)
    counts = [65, 1, 20, 2, 50]
    together = found(logits, counts)
    for row in range(5):
        for whole, alone in zip(together, found(logits[row : row + 1], counts[row : row + 1]), strict=True):
            assert whole[row].tobytes() == alone[0].tobytes()
