"""adapter, and what a linear adds for it: x @ A^T and low @ B^T of each row's adapter, each rounded once to float32.

Called by interpret.py and linear.py.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall


def adapter(call: OpCall) -> tuple[Array, ...]:
    modules, max_rank = call.attrs["modules"], call.attrs["max_rank"]
    low = np.zeros((len(call["x"]), len(modules) * max_rank), np.float32)
    for row, slot in enumerate(call["slots"].tolist()):
        for place, (name, _, _) in enumerate(modules):
            if slot >= 0 and name in call.adapters[slot]:
                a, _ = call.adapters[slot][name]
                found = a.astype(np.float64) @ call["x"][row].astype(np.float64)
                low[row, place * max_rank : place * max_rank + len(a)] = found
    return (low,)


def add_low(y: Array, call: OpCall) -> Array:
    """y of a linear with what each row's adapter adds; y itself where the linear knows no adapters."""
    if "low" not in call.inputs:
        return y
    y, low = y.copy(), call["low"].astype(np.float64)
    max_rank = low.shape[1] // len(call.attrs["modules"])
    for row, slot in enumerate(call["slots"].tolist()):
        for place, (name, first, end) in enumerate(call.attrs["modules"]):
            if slot >= 0 and name in call.adapters[slot]:
                _, b = call.adapters[slot][name]
                y[row, first:end] += b.astype(np.float64) @ low[row, place * max_rank :][: b.shape[1]]
    return y
