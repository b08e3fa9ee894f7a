"""linear: x @ weight^T (+ bias), summed in float64 and rounded once to float32; and sums as a binary tree.

Called by interpret.py. Products of float32 are exact in float64 to 2^-53; whoever computes in float32 is within
the usual bound of its own summation from this.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from albireo.backends.reference.adapter import add_low
from albireo.backends.reference.call import Array, OpCall
from albireo.errors import InvariantError


def linear(call: OpCall) -> tuple[Array, ...]:
    x, weight, chunks = call["x"].astype(np.float64), call["weight"].astype(np.float64), call.attrs.get("chunks", 1)
    if chunks == 1:
        y = add_low(x @ weight.T, call)
        return ((y + call["bias"] if "bias" in call.inputs else y).astype(np.float32),)
    parts = zip(np.split(x, chunks, axis=-1), np.split(weight, chunks, axis=-1), strict=True)
    leaves = [add_low(a @ w.T, call, chunk).astype(np.float32) for chunk, (a, w) in enumerate(parts)]
    return (_with_bias(tree_sum(leaves), call),)


def head_linear(call: OpCall) -> tuple[Array, ...]:
    heads, x, weight = call.attrs["num_heads"], call["x"].astype(np.float64), call["weight"].astype(np.float64)
    blocks = weight.reshape(heads, -1, weight.shape[1])
    y = np.einsum("thk,hnk->thn", x.reshape(len(x), heads, weight.shape[1]), blocks)
    return (y.reshape(len(x), len(weight)).astype(np.float32),)


def all_reduce(call: OpCall) -> tuple[Array, ...]:
    """Raises: InvariantError where a rank's graph runs without the others."""
    if call.exchange is None:
        raise InvariantError("a rank needs the others here; run them together with interpret_ranks()")
    parts = call.exchange(call["x"])
    if len(parts) != call.attrs["ranks"]:
        raise InvariantError(f"{len(parts)} ranks run a graph that was cut for {call.attrs['ranks']}")
    return (_with_bias(tree_sum(parts), call),)


def tree_sum(parts: Sequence[Array]) -> Array:
    """Neighbours added, then their sums, and so on; each addition rounds to float32. len(parts): a power of two."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return np.asarray(tree_sum(parts[:half]) + tree_sum(parts[half:]), np.float32)


def _with_bias(y: Array, call: OpCall) -> Array:
    return np.asarray(y + call["bias"], np.float32) if "bias" in call.inputs else y
