"""rms_norm and its three steps: x / sqrt(mean(x^2) + eps) * weight + bias, in float64, rounded once to float32.

Called by interpret.py. With num_heads > 1 each of the equal parts of a row is a vector of its own. A centered one
(LayerNorm) is of x minus its mean.
"""

from __future__ import annotations

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.graph.op_numbers import SQUARES


def rms_norm(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    heads = call.attrs["num_heads"]
    parts = x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
    if call.attrs.get("centered", False):
        parts = parts - np.mean(parts, axis=-1, keepdims=True)
    mean_square = np.mean(parts**2, axis=-1, keepdims=True)
    y = parts / np.sqrt(mean_square + call.attrs["eps"])
    if "weight" in call.inputs:
        y = y * call["weight"].reshape(-1, parts.shape[-1])
    if "bias" in call.inputs:
        y = y + call["bias"]
    return (y.reshape(x.shape).astype(np.float32),)


def gain(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] * call["weight"].astype(np.float32),)


def shift(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] + call["weight"].astype(np.float32),)


def squares(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    starts = range(0, x.shape[1], SQUARES)
    return (np.stack([np.sum(x[:, at : at + SQUARES] ** 2, axis=1) for at in starts], axis=1).astype(np.float32),)


def row_norm(call: OpCall) -> tuple[Array, ...]:
    mean = np.sum(call["squares"].astype(np.float64), axis=1, keepdims=True) / call.attrs["width"]
    x = call["x"]
    if len(x) != len(mean):  # rows of pairs, by token
        mean = np.repeat(mean, len(x) // len(mean), axis=0)
    y = x / np.sqrt(mean + call.attrs["eps"])
    return ((y + added_by_rows(call) if "bias" in call.inputs else y).astype(np.float32),)


def added_by_rows(call: OpCall) -> Array:
    """The bias of a row_norm: of all rows, or of each pair that of its expert."""
    bias: Array = call["bias"]
    return bias.reshape(-1, call["x"].shape[1])[call["ids"].reshape(-1)] if "ids" in call.inputs else bias
