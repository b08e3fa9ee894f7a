"""linear: x @ weight^T (+ bias), summed in float64 and rounded once to float32.

Called by interpret.py. Products of float32 are exact in float64 to 2^-53; whoever computes in float32 is within
the usual bound of its own summation from this.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall


def linear(call: OpCall) -> tuple[Array, ...]:
    y = call["x"].astype(np.float64) @ call["weight"].astype(np.float64).T
    if "bias" in call.inputs:
        y = y + call["bias"]
    return (y.astype(np.float32),)
