"""Batch norms, folded into the convolution before them.

Called by the families beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32

_EPS = 1e-5


def _gain(weight: F32, variance: F32) -> NDArray[np.float64]:
    return np.asarray(weight / np.sqrt(variance.astype(np.float64) + _EPS))


def folded_weight(weight: F32, variance: F32, conv: F32) -> F32:
    """[channels, width] of a convolution's [channels, ...]."""
    return np.asarray(_gain(weight, variance)[:, None] * conv.reshape(len(conv), -1), np.float32)


def folded_bias(weight: F32, bias: F32, mean: F32, variance: F32, conv: F32 | None = None) -> F32:
    """Args: conv: bias of the convolution; None: it has none."""
    before = mean.astype(np.float64) if conv is None else mean.astype(np.float64) - conv
    return np.asarray(bias - _gain(weight, variance) * before, np.float32)


def folded(
    conv: str,
    dims: tuple[int, int],
    norm: str,
    weight: str,
    bias: tuple[str, ...] = (),
    fold: Callable[[F32, F32, F32], F32] = folded_weight,
) -> dict[str, Made]:
    """Weight and bias of a convolution of channels, by the names that its family's graph asks for.

    Args: conv: the module that all are in. dims: channels and taps. bias: of the convolution, where it has one. fold:
    what makes the weight.
    """
    norms = [f"{conv}.{norm}.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")]
    return {
        f"{conv}.folded.weight": Made(dims, (norms[0], norms[3], f"{conv}.{weight}"), fold),
        f"{conv}.folded.bias": Made(dims[:1], (*norms, *(f"{conv}.{each}" for each in bias)), folded_bias),
    }
