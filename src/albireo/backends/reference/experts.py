"""Mixture of experts: which experts a token has and how much each counts, their linears, and the sum of what they give.

Called by interpret.py, and by verify where routes are given. In float64, rounded once to float32; the choice compares
the float32 logits themselves, so that it is the same on every backend.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.errors import InvariantError


def route(call: OpCall) -> tuple[Array, ...]:
    logits, top_k = call["x"], call.attrs["top_k"]
    # as top_logits: the lowest id first of equals, NaN before all numbers
    order = np.lexsort((-logits, ~np.isnan(logits)), axis=-1)
    ids = order[:, :top_k].astype(np.int32)
    return ids, route_weights(logits, ids, call.attrs["renormalize"])


def route_weights(logits: Array, ids: Array, renormalize: bool) -> Array:
    """[T, k] float32 what chosen experts count, from logits [T, E] and ids [T, k]."""
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=-1, keepdims=True))
    chosen = np.take_along_axis(powers, ids.astype(np.int64), axis=-1)
    whole = chosen if renormalize else powers
    return np.asarray(chosen / whole.sum(axis=-1, keepdims=True), np.float32)


def expert_linear(call: OpCall) -> tuple[Array, ...]:
    weight, ids, count = call["weight"], call["ids"].reshape(-1), call.attrs["num_experts"]
    if ids.size and not (ids.min() >= 0 and ids.max() < count):
        raise InvariantError(f"expert ids {ids.min()}..{ids.max()} leave the {count} experts there are")
    x, height = rows_of_pairs(call), weight.shape[0] // count
    out = np.empty((len(ids), height), np.float32)
    for expert in np.unique(ids):
        rows, block = ids == expert, weight[expert * height : (expert + 1) * height]
        out[rows] = (x[rows].astype(np.float64) @ block.astype(np.float64).T).astype(np.float32)
    if "bias" in call.inputs:
        out += call["bias"].reshape(count, height)[ids]
    return (out,)


def rows_of_pairs(call: OpCall) -> Array:
    """[P, K] the row of x that each pair reads."""
    x, num_tokens, top_k = call["x"], len(call["ids"]), call.attrs["top_k"]
    return np.repeat(x, top_k, axis=0) if len(x) == num_tokens and top_k > 1 else np.asarray(x)


def combine(call: OpCall) -> tuple[Array, ...]:
    weights = call["weights"]
    rows = call["x"].reshape(*weights.shape, -1)
    out = weights[:, 0, None] * rows[:, 0]
    for j in range(1, weights.shape[1]):
        out += weights[:, j, None] * rows[:, j]
    return (np.asarray(out, np.float32),)


def gate_rows(call: OpCall) -> tuple[Array, ...]:
    gate = call["gate"].astype(np.float64)
    small = np.exp(-np.abs(gate))
    return ((np.where(gate >= 0, 1.0, small) / (1.0 + small) * call["x"]).astype(np.float32),)
