"""Rows of logits, looked at from one end to the other: which token is drawn, which may be, what is reported of one.

Called by sampling/. Does not know requests, penalties or random numbers; csrc/kernels/sample says how. A row is one
thread's, so nothing depends on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.machine import ThreadPool, isa_levels

Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Truncation:
    """What may be drawn of a row: min-p, then top-k, then top-p, each over the distribution the former left.

    Fields:
        peak: the row's largest logit, finite. temperature: above 0.
        top_k: keep the k largest and all that equal the k-th; 0 keeps all.
        top_p: keep the smallest set of most probable tokens that holds at least this mass; among equally
            probable ones the lowest id first.
        min_p: keep tokens at least min_p times as probable as the best.
    Source: Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p); vLLM's order.
    """

    peak: float
    temperature: float
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def numbers(self) -> tuple[float, ...]:
        return self.peak, self.temperature, float(self.top_k), self.top_p, self.min_p


def draw_tokens(
    rows: Sequence[Row], settings: Sequence[Truncation], fractions: Sequence[float], threads: ThreadPool | None = None
) -> list[int]:
    """One place in each row: where a fraction of the weight is exceeded, weights laid end to end in order.

    Args:
        rows: [n] each, contiguous, of any length; may hold -inf, no NaN or +inf.
        fractions: in [0, 1). threads: None: the calling one.
    Returns: places whose weight is above 0.
    Cost: O(n) a row: without top-k or min-p 60 µs for 150,000 logits (AVX-512), with one of them 20.
    """
    tokens = np.empty(len(rows), np.int32)
    table = np.array([(*s.numbers(), f) for s, f in zip(settings, fractions, strict=True)], np.float64).reshape(-1, 6)
    sizes = np.array([row.size for row in rows], np.int64)
    _native.draw_tokens(threads, isa_levels()[0], _addresses(rows), sizes, table, tokens)
    return tokens.tolist()


def kept_tokens(row: Row, settings: Truncation) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Those of a row that may be drawn: their ids, ascending, and their weights, the best having 1."""
    ids, weights = np.empty(row.size, np.int32), np.empty(row.size)
    count = _native.kept_tokens(isa_levels()[0], np.ascontiguousarray(row), np.array(settings.numbers()), ids, weights)
    return ids[:count], weights[:count]


def log_rows(
    rows: Sequence[Row], peaks: Sequence[float], named: NDArray[np.int32], num: int, threads: ThreadPool | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int64]]:
    """What log-probabilities are made of.

    Args:
        rows: [V] each, contiguous; may hold -inf, no NaN or +inf. peaks: their largest logits, finite.
        named: [rows, any] tokens. num: of the best, up to V.
    Returns: log of the sum of exp(logit), [rows]; ids of the best, [rows, num], among equals the lowest first; how many
        logits are larger than that of each token named.
    Cost: O(V) a row, 60 µs and 4 for each token named for 150,000 logits (AVX-512).
    """
    totals = np.empty(len(rows))
    best, above = np.empty((len(rows), num), np.int32), np.empty(named.shape, np.int64)
    size = rows[0].size if rows else 0
    level, heights = isa_levels()[0], np.array(peaks, np.float64)
    _native.log_rows(threads, level, _addresses(rows), size, heights, named, totals, best, above)
    return totals, best, above


def _addresses(rows: Sequence[Row]) -> NDArray[np.uint64]:
    return np.array([row.ctypes.data for row in rows], np.uint64)
