"""Cosines and sines of a RopeSpec: the one definition every backend rotates by.

Called when weights are packed (a table of every position) and by the reference. Does not know heads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.graph.ops import RopeSpec


def rope_table(rope: RopeSpec, positions: NDArray[np.int32]) -> NDArray[np.float32]:
    """[len(positions), D/2, 2] float32: cos and sin of position * inv_freq, times the attention factor where it turns,
    and all of a position times what its queries have grown by.

    The angle is rounded to float32 before the exact cosine, as transformers does: models are trained and published
    with that rounding, and at position 100,000 it moves an angle by 4e-3.
    """
    inv_freq, positions = np.asarray(rope.inv_freq, np.float32), np.maximum(positions - rope.behind, 0)
    angles = (positions.astype(np.float32)[:, None] * inv_freq[None, :]).astype(np.float64)
    table = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    # a pair that does not turn is of channels that are not rotated at all
    factors = np.where(inv_freq == 0, np.float32(1.0), np.float32(rope.attention_factor))
    table = table * factors[None, :, None]
    if rope.growth is not None:
        periods = (positions + rope.growth.ahead) // rope.growth.period
        grown = 1.0 + rope.growth.by * np.log1p(periods.astype(np.float64))
        table = table * grown.astype(np.float32)[:, None, None]
    return np.asarray(table, np.float32)
