"""How far float32 norms may be from the reference's: whole ones, and the three steps of those that are inside linears.

Called by bounds.py. Sums of squares have no sign, so their errors are relative. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import OpCall
from albireo.backends.reference.rms_norm import added_by_rows
from albireo.graph.op_numbers import SQUARES

F64 = NDArray[np.float64]

_U = 2.0**-24
#: What hardware may take for zero.
_FLUSHED = 2.0**-126


def rms_norm_error(call: OpCall, error: Any) -> F64:
    """The mean of D squares, a square root and two products; x's own error moves the mean as well.

    A centered norm's mean is off by what a sum of D numbers of any sign may be, and so is each difference; and one
    more rounding where a bias is added.
    """
    given, heads = np.asarray(call["x"]), call.attrs["num_heads"]
    width = given.shape[-1] // heads
    x = given.astype(np.float64).reshape(*given.shape[:-1], heads, width)
    weight = np.asarray(call["weight"].reshape(-1, width) if "weight" in call.inputs else 1.0).astype(np.float64)
    error = np.broadcast_to(np.asarray(error, np.float64), given.shape).reshape(x.shape)
    if call.attrs.get("centered", False):
        sizes = np.abs(x).mean(axis=-1, keepdims=True)
        x = x - x.mean(axis=-1, keepdims=True)
        error = error + error.mean(axis=-1, keepdims=True) + (np.sqrt(width) + 4) * _U * sizes + 2 * _U * np.abs(x)
    factor = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + call.attrs["eps"])
    out = np.abs(x * factor * weight)
    relative = factor**2 * (np.abs(x) * error).mean(axis=-1, keepdims=True) + (np.sqrt(width) + 8) * _U
    found = np.abs(factor * weight) * error + out * relative + _FLUSHED
    if "bias" in call.inputs:
        found = found + 2 * _U * (out + np.abs(np.asarray(call["bias"], np.float64)))
    return np.asarray(found.reshape(given.shape), np.float64)


def gain_error(call: OpCall, error: Any) -> F64:
    """One product; and x's error times the weight."""
    x, weight = (np.abs(np.asarray(call[role]).astype(np.float64)) for role in ("x", "weight"))
    return np.asarray(weight * error + 2 * _U * x * weight + _FLUSHED, np.float64)


def squares_error(call: OpCall, error: Any) -> F64:
    """A square each, and a sum of SQUARES of them; and what x's error makes of a square."""
    x = np.abs(np.asarray(call["x"]).astype(np.float64))
    error = np.broadcast_to(np.asarray(error, np.float64), x.shape)
    each = 2 * x * error + error**2 + (np.sqrt(SQUARES) + 2) * _U * x**2 + _FLUSHED
    return np.asarray(np.add.reduceat(each, np.arange(0, x.shape[1], SQUARES), axis=1), np.float64)


def row_norm_error(call: OpCall, errors: Mapping[str, Any]) -> F64:
    """The sum of a row's squares, and eps and the five operations that make a factor of it; a product; and the bias.

    The sums of products that are divided bring their errors along, and so do squares, half as far.
    """
    squares = np.asarray(call["squares"]).astype(np.float64)
    of_squares = np.broadcast_to(np.asarray(errors["squares"], np.float64), squares.shape)
    if len(call["x"]) != len(squares):  # rows of pairs, by token
        count = len(call["x"]) // len(squares)
        squares, of_squares = np.repeat(squares, count, axis=0), np.repeat(of_squares, count, axis=0)
    x = np.asarray(call["x"]).astype(np.float64)
    bias = added_by_rows(call).astype(np.float64) if "bias" in call.inputs else np.zeros(())
    mean = squares.sum(axis=1, keepdims=True) / call.attrs["width"]
    factor = 1 / np.sqrt(mean + call.attrs["eps"])
    moved = of_squares.sum(axis=1, keepdims=True)
    relative = factor**2 / 2 * moved / call.attrs["width"] + (np.sqrt(squares.shape[1]) + 8) * _U
    y = np.abs(x) * factor
    return np.asarray(y * relative + factor * errors["x"] + 2 * _U * (y + np.abs(bias)) + _FLUSHED, np.float64)
