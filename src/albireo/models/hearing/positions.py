"""Positions that no checkpoint holds: sines, then cosines; and by what heads are rotated, cosines, then sines.

Called by the families beside it.
"""

from __future__ import annotations

import numpy as np

from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import EncoderSettings
from albireo.models.vision.patches import F32

#: Of a sine and its cosine the slowest goes round once in so many positions, times 2 pi.
_SLOWEST = 10000.0


def sines(count: int, width: int) -> F32:
    """[count, width]: of so many positions, width / 2 speeds from once in 2 pi positions to the slowest."""
    half = width // 2
    speeds = np.exp(-np.log(_SLOWEST) / (half - 1) * np.arange(half))
    angles = np.arange(count)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def turns(count: int, theta: float, c: EncoderSettings) -> F32:
    """[count, head_dim] by which the first so many positions turn c.turned numbers of a head, and leave the others."""
    angles = np.arange(count, dtype=np.float32)[:, None] * base_frequencies(theta, c.turned // 2 * 2)
    still = np.ones((count, (c.head_dim - c.turned) // 2), np.float32)
    return np.concatenate([np.cos(angles), still, np.sin(angles), 0 * still], axis=1).astype(np.float32)
