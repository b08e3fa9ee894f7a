"""Convolutions of channels that see what is before alone, as graph.ops.depthwise_conv has them, which sees both ways.

Called by the families beside it, of whose made tensors it is one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from albireo.models.vision.patches import F32


def before_alone(width: int, kernel: int) -> Callable[[F32], F32]:
    """What makes [width, 2 * kernel - 1] of a weight of so many numbers, in any dimensions: as many zeros are behind.

    What it makes raises ValueError for a weight of other numbers.
    """
    return lambda weight: np.pad(weight.reshape(width, kernel), ((0, 0), (0, kernel - 1)))
