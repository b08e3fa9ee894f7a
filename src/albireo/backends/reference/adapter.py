"""adapter, and what a linear adds for it: x @ A^T and low @ B^T of each row's adapter, each rounded once to float32.

Called by interpret.py and linear.py.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall


def adapter(call: OpCall) -> tuple[Array, ...]:
    modules, max_rank, chunks = call.attrs["modules"], call.attrs["max_rank"], call.attrs.get("chunks", 1)
    low = np.zeros((len(call["x"]), chunks, len(modules), max_rank), np.float32)
    first, end = call.attrs.get("module_inputs", (0, call["x"].shape[1]))
    for row, slot in enumerate(call["slots"].tolist()):
        for place, (name, _, _) in enumerate(modules):
            if slot >= 0 and name in call.adapters[slot]:
                a, _ = call.adapters[slot][name]
                x = call["x"][row].astype(np.float64).reshape(chunks, -1)
                parts = a[:, first:end].astype(np.float64).reshape(len(a), chunks, -1)
                low[row, :, place, : len(a)] = np.einsum("rck,ck->cr", parts, x)
    return (low.reshape(len(low), -1),)


def add_low(y: Array, call: OpCall, chunk: int = 0) -> Array:
    """y of a linear, or of one of its chunks, with what each row's adapter adds; y itself where it has none."""
    if "low" not in call.inputs:
        return y
    y, modules = y.copy(), call.attrs["modules"]
    low = call["low"].astype(np.float64).reshape(len(y), call.attrs.get("chunks", 1), -1)[:, chunk]
    rows = call.attrs.get("module_rows", (0,) * len(modules))
    max_rank = low.shape[1] // len(modules)
    for row, slot in enumerate(call["slots"].tolist()):
        for place, (name, first, end) in enumerate(modules):
            if slot >= 0 and name in call.adapters[slot]:
                _, b = call.adapters[slot][name]
                b = b[rows[place] : rows[place] + end - first]
                y[row, first:end] += b.astype(np.float64) @ low[row, place * max_rank :][: b.shape[1]]
    return y
