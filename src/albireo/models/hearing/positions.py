"""Positions that no checkpoint holds: sines, then cosines.

Called by the families beside it.
"""

from __future__ import annotations

import numpy as np

from albireo.models.vision.patches import F32

#: Of a sine and its cosine the slowest goes round once in so many positions, times 2 pi.
_SLOWEST = 10000.0


def sines(count: int, width: int) -> F32:
    """[count, width]: of so many positions, width / 2 speeds from once in 2 pi positions to the slowest."""
    half = width // 2
    speeds = np.exp(-np.log(_SLOWEST) / (half - 1) * np.arange(half))
    angles = np.arange(count)[:, None] * speeds
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
