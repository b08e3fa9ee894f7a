"""What attention adds to scores by how far a position is from the row's: numbers of a table, or of rows of the step.

Used inside kernels/attention.py, whose contract says what the numbers are; ByDistance is made by bind.py once a call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

#: What the kernel is told of nothing that is added.
NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("distances", "from_rows", "from_keys", "columns")),
    "from_rows_stride": 0,
    "from_keys_stride": 0,
    "REACH": 0,
    "COLUMNS": 0,
}


@dataclass(frozen=True, slots=True)
class ByDistance:
    """Fields:
    reach: distances that are told from farther ones.
    distances: [H, 2 * reach + 1] float32 that scores before their scale have added, of positions from reach before the
        row's to reach behind it; None: rows are what is added.
    rows: [T, H * C] float32 of the rows of q, rows any distance apart; keys: the same of positions, or None.
    columns: [2 * reach + 1] int32, of rows from reach before the position to reach behind it which of C columns theirs
        is; None: C is 2 * reach, and each distance but the last has its own.
    """

    reach: int
    distances: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    columns: torch.Tensor | None = None

    def arguments(self, num_heads: int) -> dict[str, Any]:
        """Of the kernel."""
        return {
            "distances": self.distances,
            "from_rows": self.rows,
            "from_keys": self.keys,
            "columns": self.columns,
            "from_rows_stride": 0 if self.rows is None else self.rows.stride(0),
            "from_keys_stride": 0 if self.keys is None else self.keys.stride(0),
            "REACH": self.reach,
            "COLUMNS": 0 if self.rows is None else self.rows.shape[1] // num_heads,
        }


@triton.jit
def add_by_distance(
    scores, distances, from_rows, from_keys, columns, heads, row_places, keys_start, keys_stride, at, positions,
    is_there, REACH: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """scores [BM, BN] and what is added to them.

    heads, positions: [BM] of rows; at: [BN] positions of keys. row_places: [BM] where a row's numbers of its head
    begin; keys_start: which row of from_keys, keys_stride apart, is that of position 0. is_there: [BN], asked where
    MASKED.
    """
    if distances is not None:
        away = tl.minimum(tl.maximum(at[None, :] - positions[:, None], -REACH), REACH) + REACH
        scores += tl.load(distances + heads[:, None] * (2 * REACH + 1) + away)
    if from_rows is not None:
        away = positions[:, None] - at[None, :]
        if columns is None:
            column = tl.minimum(tl.maximum(away + REACH, 0), COLUMNS - 1)
        else:
            column = tl.load(columns + (tl.minimum(tl.maximum(away, -REACH), REACH) + REACH))
        added = tl.load(from_rows + row_places[:, None] + column)
        if from_keys is not None:
            key_places = (keys_start + at).to(tl.int64) * keys_stride
            of_keys = from_keys + key_places[None, :] + (heads[:, None] * COLUMNS + column)
            if MASKED:
                added += tl.load(of_keys, mask=tl.broadcast_to(is_there[None, :], scores.shape), other=0.0)
            else:
                added += tl.load(of_keys)
        scores += added
    return scores
