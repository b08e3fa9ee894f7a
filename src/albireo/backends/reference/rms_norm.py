"""rms_norm: x / sqrt(mean(x^2) + eps) * weight, in float64, rounded once to float32.

Called by interpret.py. With num_heads > 1 each of the equal parts of a row is a vector of its own.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall


def rms_norm(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    parts = x.reshape(*x.shape[:-1], call.attrs["num_heads"], len(call["weight"]))
    mean_square = np.mean(parts**2, axis=-1, keepdims=True)
    y = parts / np.sqrt(mean_square + call.attrs["eps"]) * call["weight"]
    return (y.reshape(x.shape).astype(np.float32),)
