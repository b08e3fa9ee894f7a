"""Ops that move rows and columns without arithmetic: embed, gather_rows, split, join_heads, top_logits.

Called by interpret.py.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.elementwise import sigmoid
from albireo.errors import InvariantError
from albireo.graph.op_numbers import CONV_ACTIVATIONS, TOP_LOGITS


def embed(call: OpCall) -> tuple[Array, ...]:
    ids, table = call["ids"], call["table"]
    # A negative id would read from the end of the table without a word.
    if ids.size and not (ids.min() >= 0 and ids.max() < len(table)):
        raise InvariantError(f"token ids {ids.min()}..{ids.max()} leave the vocabulary of {len(table)}")
    found = table[ids]
    given = call.step.given_rows
    if given is not None and ids is call.step.token_ids and not call.attrs.get("never_given", False):
        found[given >= 0] = call.step.given[0][given[given >= 0]]
    return (found,)


def add_given(call: OpCall) -> tuple[Array, ...]:
    found, rows = call["x"].copy(), call.step.given_rows
    if rows is not None:
        found[rows >= 0] += call.step.given[call.attrs["place"]][rows[rows >= 0]]
    return (found,)


def given(call: OpCall) -> tuple[Array, ...]:
    return (call.step.given[call.attrs["place"]],)


def gather_rows(call: OpCall) -> tuple[Array, ...]:
    return (call["x"][call["rows"]],)


def split(call: OpCall) -> tuple[Array, ...]:
    return tuple(np.split(call["x"], np.cumsum(call.attrs["sizes"])[:-1], axis=-1))


def join_heads(call: OpCall) -> tuple[Array, ...]:
    rows, heads = len(call["x"]), call.attrs["num_heads"]
    parts = [call[role].reshape(rows, heads, call[role].shape[1] // heads) for role in ("x", "y")]
    joined = np.concatenate(parts, axis=-1)
    return (joined.reshape(rows, heads * joined.shape[-1]),)


def top_logits(call: OpCall) -> tuple[Array, ...]:
    """A stable sort keeps the lowest id first of equals; NaN comes before all numbers."""
    logits, counts = call["logits"], call.step.top_counts
    ids = np.full((len(logits), TOP_LOGITS), -1, np.int32)
    values = np.full((len(logits), TOP_LOGITS), -np.inf, np.float32)
    for row, (found, count) in enumerate(zip(logits, counts, strict=True)):
        is_number = ~np.isnan(found)
        best = np.lexsort((-found, is_number))[:count]
        ids[row, : len(best)], values[row, : len(best)] = best, found[best]
    return ids, values


def depthwise_conv(call: OpCall) -> tuple[Array, ...]:
    x, weight = call["x"].astype(np.float64), call["weight"].astype(np.float64)
    width = weight.shape[1]
    padded = np.pad(x, ((width // 2, width // 2), (0, 0)))
    sums = sum(weight[:, j] * padded[j : j + len(x)] for j in range(width))
    sums = np.asarray(sums + call.inputs.get("bias", 0.0))
    is_silu = call.attrs.get("activation", CONV_ACTIVATIONS[0]) == CONV_ACTIVATIONS[0]
    return (np.asarray(sums * sigmoid(sums) if is_silu else sums, np.float32),)
