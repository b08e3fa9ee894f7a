"""Runs the body of a node with the reference's ops, and bounds how far a float32 kernel may be from what they give.

Called by ops.py and layers.py. Each base op has a rule; a fused node's tolerance follows from its body, whatever is
fused. Nothing here is a guess of a percentage: rules use the operands at hand. Does not know kernels or devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.rounding import round_code, round_kv, round_to, scaled_codes
from albireo.backends.rope_table import rope_table
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import FP8_TOKEN, KV_CODES, TOKEN
from albireo.graph.node import Graph, Node, Value
from albireo.verify.attention_bound import attention_error, chain_error

F64 = NDArray[np.float64]

#: Unit roundoff of float32: the largest relative error of one rounding.
U = 2.0**-24
#: Below the smallest normal number of float32 and bfloat16, which hardware may flush to zero.
FLUSHED = 2.0**-126
#: Elements of a weight that are widened at a time: small enough that memory is used again rather than asked for.
_CHUNK = 1 << 20
#: Largest slope of each activation.
_SLOPES = {"silu": 1.1, "gelu": 1.13, "gelu_tanh": 1.13, "sigmoid": 0.25, "tanh": 1.0}


@dataclass(frozen=True, slots=True)
class Bounded:
    """What the reference says, and by how much each element of a right result may differ from it.

    Fields:
        value: float32 or int32, or the KV cache.
        error: of value's shape; 0.0: to the bit. For the KV cache: of k and of v. For the best logits: of all logits.
        behind: for the KV cache k and v [T, K, D] as they were written; for the best logits all logits.
    """

    value: Any
    error: Any = 0.0
    behind: tuple[Array, ...] = ()


@dataclass(frozen=True, slots=True)
class _Given:
    """One op: its call, and the errors of its inputs by role."""

    call: OpCall
    errors: Mapping[str, Any]

    def __getitem__(self, role: str) -> Array:
        return np.asarray(self.call[role])


def evaluate(node: Node, roles: Mapping[str, Any], step: StepInputs, *, bounded: bool = True) -> list[Bounded]:
    """Run a fused node on exact inputs.

    Args:
        roles: an array for each input of node by role; a KV cache for the role kv, which is written.
        bounded: without it, errors stay 0 and cost nothing.
    Returns: one for each output of node.
    """
    assert node.body is not None, "a fused node has a body"
    return _run(node.body, roles, step, bounded)


def _run(body: Graph, roles: Mapping[str, Any], step: StepInputs, bounded: bool) -> list[Bounded]:
    env: dict[Value, Bounded] = {value: Bounded(roles[name]) for name, value in body.inputs.items()}
    for node in body.nodes:
        given = {role: env[value] for role, value in node.inputs.items()}
        call = OpCall({role: each.value for role, each in given.items()}, node.attrs, step)
        op = _Given(call, {role: each.error for role, each in given.items()})
        env.update(zip(node.outputs, _op(node.op, op, bounded), strict=True))
    return [env[value] for value in body.outputs.values()]


def _op(name: str, op: _Given, bounded: bool) -> list[Bounded]:
    if name == "linear":
        return [_linear(op, bounded)]
    if name == "kv_write":
        return [_kv_write(op)]
    values = OPS[name](op.call)
    if name == "top_logits":
        return [Bounded(values[0]), Bounded(values[1], op.errors["logits"], (op["logits"],))]
    if not bounded:
        return [Bounded(value) for value in values]
    with np.errstate(over="ignore", invalid="ignore"):
        return [Bounded(v, e) for v, e in zip(values, _RULES[name](op, values), strict=True)]


def _linear(op: _Given, bounded: bool) -> Bounded:
    """A float32 sum of K products in any order: 4 sqrt(K) u sum|x w|, beside what x brings along."""
    x, weight = op["x"], op.call["weight"]
    rows = max(64, _CHUNK // weight.shape[1])
    error_of_x = np.broadcast_to(op.errors["x"], x.shape).astype(np.float32)
    magnitude, carried = np.abs(x).astype(np.float32), bool(error_of_x.any())
    values, errors = [], []
    for start in range(0, len(weight), rows):
        part = {"x": x, "weight": weight[start : start + rows]}
        if "bias" in op.call.inputs:
            part["bias"] = op["bias"][start : start + rows]
        (value,) = OPS["linear"](OpCall(part, {}, op.call.step))
        values.append(value)
        if bounded:
            size = np.abs(part["weight"])
            error = chain_error(weight.shape[1], (magnitude @ size.T).astype(np.float64))
            errors.append(error + (error_of_x @ size.T if carried else 0.0))
    value = np.concatenate(values, axis=1)
    if not bounded:
        return Bounded(value)
    bias = np.abs(op["bias"]) if "bias" in op.call.inputs else 0.0
    return Bounded(value, np.concatenate(errors, axis=1) + 2 * U * (np.abs(value) + bias) + FLUSHED)


def _kv_write(op: _Given) -> Bounded:
    """k and v are rounded to the type of the cache."""
    kv = op.call["kv"]
    OPS["kv_write"](op.call)
    shape = (op.call.step.num_tokens, op.call.attrs["num_kv_heads"], op.call.attrs["head_dim"])
    given = [(op[role].reshape(shape), _as(op.errors[role], op[role]).reshape(shape)) for role in ("k", "v")]
    rounded = _rounded_to_codes if kv.dtype in KV_CODES else _rounded
    errors = tuple(rounded(value, error, kv.dtype) for value, error in given)
    k, v = (round_kv(value, kv.dtype) for value, _ in given)
    return Bounded(kv, errors, (k, v))


def _as(error: Any, like: Array) -> F64:
    return np.broadcast_to(np.asarray(error, np.float64), like.shape)


def _rounded(x: Array, error: Any, dtype: str) -> F64:
    """How far a rounding may end up when x is off by error: nothing, unless a tie lies in between."""
    if dtype == "float32":
        return _as(error, x)
    if dtype == TOKEN:
        return _rounded_tokens(x, _as(error, x))
    if dtype == FP8_TOKEN:
        return _rounded_to_codes(x, error, "fp8")
    wide = _as(error, x)
    centre = round_to(x, dtype).astype(np.float64)
    ends = [np.nextafter((x + sign * wide).astype(np.float32), np.float32(sign * np.inf)) for sign in (1, -1)]
    off = np.max([np.abs(round_to(end, dtype) - centre) for end in ends], axis=0)
    off = np.where(np.isnan(off), np.where(np.isfinite(x), np.inf, 0.0), off)
    flushed = FLUSHED if dtype == "bfloat16" else 0.0
    return np.where(wide > 0, off + flushed, 0.0)


def _rounded_tokens(x: Array, error: F64) -> F64:
    """A code may be one off where a tie lies within reach; the scale follows the largest element, with its error."""
    largest = np.abs(x).max(axis=1, keepdims=True).astype(np.float64)
    step = largest / 127
    relative = (error.max(axis=1, keepdims=True) + 4 * U * largest) / np.maximum(largest, FLUSHED)
    reach = error + np.abs(x) * relative
    distance = np.abs(np.abs(x / np.maximum(step, FLUSHED)) % 1.0 - 0.5) * step
    return np.asarray(np.where(distance <= reach, step, 0.0) + np.abs(x) * relative + FLUSHED, np.float64)


def _rounded_to_codes(x: Array, error: Any, dtype: str) -> F64:
    """How far codes and their scale may end up when x is off by error: the scale moves by its share of the largest
    error of its row, and a code by as much as both take it past a tie.
    """
    wide = _as(error, x).astype(np.float64)
    codes, scale = (a.astype(np.float64) for a in scaled_codes(x, dtype))
    moved = wide.max(axis=-1, keepdims=True) / KV_CODES[dtype] + 4 * U * scale
    largest = KV_CODES[dtype]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = []
        for sign in (1, -1):
            end = x + sign * wide
            end = np.clip(end / np.maximum(scale - np.sign(end) * sign * moved, FLUSHED), -largest, largest)
            beyond = np.nextafter(end.astype(np.float32), np.float32(sign * np.inf))
            steps.append(np.abs(round_code(beyond, dtype) - codes))
    off = np.max(steps, axis=0) * (scale + moved) + np.abs(codes) * moved
    off = np.where(np.isnan(off), np.where(np.isfinite(x), np.inf, 0.0), off) + FLUSHED * largest
    return np.where(wide.max(axis=-1, keepdims=True) > 0, off, 0.0)


def _copied(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """Rows picked from x."""
    error = op.errors.get("x", 0.0)
    if not np.any(error):
        return [0.0]
    return [_as(error, op["x"])[op["rows"]]]


def _split(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    error = _as(op.errors["x"], op["x"])
    return list(np.split(error, np.cumsum(op.call.attrs["sizes"])[:-1], axis=-1))


def _embed(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [0.0]


def _cast(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [_rounded(op["x"], op.errors["x"], op.call.attrs["dtype"])]


def _add(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    error = _as(op.errors["x"], op["x"]) + op.errors["y"]
    return [error + 2 * U * np.abs(values[0])]


def _mul(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    x, y, ex, ey = op["x"], op["y"], op.errors["x"], op.errors["y"]
    return [np.abs(x) * ey + np.abs(y) * ex + ex * ey + 2 * U * np.abs(values[0]) + FLUSHED]


def _scale(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [abs(op.call.attrs["factor"]) * op.errors["x"] + 2 * U * np.abs(values[0])]


def _unary(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """16 roundings, and an exponential whose argument, and so whose error, grows with x."""
    x, error, kind = np.abs(op["x"]).astype(np.float64), op.errors["x"], op.call.attrs["kind"]
    slope = 2 * (x + error) if kind == "relu2" else _SLOPES[kind]
    own = (16 + 4 * np.minimum(x, 90)) * U * np.maximum(np.minimum(x, 90), np.abs(values[0]))
    return [slope * error + own + FLUSHED * np.maximum(x, 1)]


def _rms_norm(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """The mean of D squares, a square root and two products; x's own error moves the mean as well."""
    weight = op["weight"].astype(np.float64)
    shape = (*op["x"].shape[:-1], op.call.attrs["num_heads"], len(weight))
    x = op["x"].astype(np.float64).reshape(shape)
    error = _as(op.errors["x"], op["x"]).reshape(shape)
    factor = 1 / np.sqrt((x**2).mean(axis=-1, keepdims=True) + op.call.attrs["eps"])
    out = np.abs(x * factor * weight)
    relative = factor**2 * (np.abs(x) * error).mean(axis=-1, keepdims=True) + (np.sqrt(len(weight)) + 8) * U
    return [(np.abs(factor * weight) * error + out * relative + FLUSHED).reshape(op["x"].shape)]


def _rope(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    attrs = op.call.attrs
    shape = (len(op["x"]), attrs["num_heads"], 2, attrs["head_dim"] // 2)
    x = np.abs(op["x"].astype(np.float64)).reshape(shape)
    error = _as(op.errors["x"], op["x"]).reshape(shape)
    table = np.abs(rope_table(attrs["rope"], op["positions"]).astype(np.float64))
    cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    both = error + 3 * U * x
    first, second = both[:, :, 0], both[:, :, 1]
    return [np.stack([first * cos + second * sin, second * cos + first * sin], axis=2).reshape(op["x"].shape) + FLUSHED]


def _attention(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [attention_error(op.call) + 2 * U * np.abs(values[0])]


_RULES: Mapping[str, Callable[[_Given, tuple[Array, ...]], list[Any]]] = {
    "embed": _embed,
    "cast": _cast,
    "rms_norm": _rms_norm,
    "split": _split,
    "rope": _rope,
    "attention": _attention,
    "add": _add,
    "mul": _mul,
    "unary": _unary,
    "scale": _scale,
    "gather_rows": _copied,
}
