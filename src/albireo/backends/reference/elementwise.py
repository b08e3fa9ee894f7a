"""Ops that look at each element alone: cast, add, mul, clamped_swiglu, unary, scale, scale_by, clip, clamp,
xielu.

Called by interpret.py. add, mul and both scales are single float32 operations; the others go through float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.rounding import round_to
from albireo.graph.op_numbers import SWIGLU_ALPHA, SWIGLU_LIMIT, XIELU_SLOPE

F64 = NDArray[np.float64]

_erf = np.vectorize(math.erf, otypes=[np.float64])


def cast(call: OpCall) -> tuple[Array, ...]:
    return (round_to(call["x"], call.attrs["dtype"]),)


def add(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] + call["y"],)


def mul(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] * call["y"],)


def clamped_swiglu(call: OpCall) -> tuple[Array, ...]:
    gate = np.minimum(call["x"].astype(np.float64), SWIGLU_LIMIT)
    up = np.clip(call["y"].astype(np.float64), -SWIGLU_LIMIT, SWIGLU_LIMIT)
    return (((up + 1.0) * gate * sigmoid(SWIGLU_ALPHA * gate)).astype(np.float32),)


def scale(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] * np.float32(call.attrs["factor"]),)


def scale_by(call: OpCall) -> tuple[Array, ...]:
    return (call["x"] * call["weight"].astype(np.float32),)


def clip(call: OpCall) -> tuple[Array, ...]:
    most = np.float32(call.attrs["most"])
    return (np.minimum(call["x"] if call.attrs.get("above") else np.maximum(call["x"], -most), most),)


def clamp(call: OpCall) -> tuple[Array, ...]:
    least, most = call["weight"].astype(np.float32)
    return (np.minimum(np.maximum(call["x"], least), most),)


def xielu(call: OpCall) -> tuple[Array, ...]:
    x = call["x"].astype(np.float64)
    right, left = xielu_sides(call["weight"])
    below = np.minimum(x, 0.0)
    curved = right * np.maximum(x, 0.0) ** 2 + left * (np.expm1(below) - below)
    return ((curved + XIELU_SLOPE * x).astype(np.float32),)


def xielu_sides(weight: Array) -> tuple[float, float]:
    """What the square above 0 and the curve below it are multiplied by."""
    right, left = np.logaddexp(0.0, weight.astype(np.float64))
    return float(right), XIELU_SLOPE + float(left)


def unary(call: OpCall) -> tuple[Array, ...]:
    return (_UNARY[call.attrs["kind"]](call["x"].astype(np.float64)).astype(np.float32),)


def sigmoid(x: F64) -> F64:
    # exp of a negative number only, so that it cannot overflow
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softplus(x: F64) -> F64:
    """log(1 + e^x) in float64."""
    return np.logaddexp(0.0, x)


def _silu(x: F64) -> F64:
    return x * sigmoid(x)


def _gelu(x: F64) -> F64:
    return np.asarray(0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))), np.float64)


def _gelu_tanh(x: F64) -> F64:
    return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def _relu(x: F64) -> F64:
    return np.maximum(x, 0.0)


def _relu2(x: F64) -> F64:
    return np.maximum(x, 0.0) ** 2


_UNARY: dict[str, Callable[[F64], F64]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "relu2": _relu2,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}
