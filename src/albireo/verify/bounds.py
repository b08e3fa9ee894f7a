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
from albireo.backends.reference.elementwise import xielu_sides
from albireo.backends.reference.experts import rows_of_pairs
from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.rope import growth
from albireo.backends.reference.rounding import round_kv
from albireo.backends.rope_table import rope_table
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import FP8_TOKEN, KV_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.op_numbers import SWIGLU_ALPHA, SWIGLU_LIMIT, XIELU_SLOPE
from albireo.verify.attention_bound import attention_error, chain_error, join_sums_error
from albireo.verify.choices import weight_error
from albireo.verify.norm_bound import gain_error, rms_norm_error, row_norm_error, squares_error
from albireo.verify.rounding_bound import FLUSHED, as_rows, rounded, rounded_to_codes
from albireo.verify.stream_bound import add_parts_error, balance_error, cut_error, match_length_error

F64 = NDArray[np.float64]

#: Unit roundoff of float32: the largest relative error of one rounding.
U = 2.0**-24
#: Elements of a weight that are widened at a time: small enough that memory is used again rather than asked for.
_CHUNK = 1 << 20
#: What a matrix unit may lose of sums of e4m3 products, as a part of the sum of their sizes.
_E4M3_SUM = 2.0**-11
#: Largest slope of each activation.
_SLOPES = {"silu": 1.1, "gelu": 1.13, "gelu_tanh": 1.13, "relu": 1.0, "sigmoid": 0.25, "tanh": 1.0}


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
    """One op: its call, and the errors and types of its inputs by role."""

    call: OpCall
    errors: Mapping[str, Any]
    types: Mapping[str, str]

    def __getitem__(self, role: str) -> Array:
        return np.asarray(self.call[role])


#: Given the number of an output and its values, those that ops of the same node which read it are to read.
Settle = Callable[[int, Array], Array]


def evaluate(
    node: Node, roles: Mapping[str, Any], step: StepInputs, *, bounded: bool = True, settle: Settle | None = None
) -> list[Bounded]:
    """Run a fused node on exact inputs.

    Args:
        roles: an array for each input of node by role; a KV cache for the role kv, which is written.
        bounded: without it, errors stay 0 and cost nothing.
        settle: None: what an output leads to inside the node stands on the reference's values, with their errors.
    Returns: one for each output of node.
    """
    assert node.body is not None, "a fused node has a body"
    return _run(node.body, roles, step, bounded, settle)


def _run(
    body: Graph, roles: Mapping[str, Any], step: StepInputs, bounded: bool, settle: Settle | None
) -> list[Bounded]:
    env: dict[Value, Bounded] = {value: Bounded(roles[name]) for name, value in body.inputs.items()}
    outputs = list(body.outputs.values())
    read = {value for node in body.nodes for value in node.inputs.values()}
    found: dict[Value, Bounded] = {}
    for node in body.nodes:
        given = {role: env[value] for role, value in node.inputs.items()}
        call = OpCall({role: each.value for role, each in given.items()}, node.attrs, step)
        types = {role: value.type.dtype for role, value in node.inputs.items()}
        op = _Given(call, {role: each.error for role, each in given.items()}, types)
        made = dict(zip(node.outputs, _op(node.op, op, bounded), strict=True))
        found |= made
        env |= made
        for value in read.intersection(made).intersection(outputs):
            if settle is not None:
                env[value] = Bounded(settle(outputs.index(value), made[value].value))
    return [found[value] for value in outputs]


def _op(name: str, op: _Given, bounded: bool) -> list[Bounded]:
    if name == "linear":
        return [_linear(op, bounded)]
    if name == "expert_linear":
        return [_expert_linear(op, bounded)]
    if name == "head_linear":
        return [_head_linear(op, bounded)]
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
    """A float32 sum of K products in any order: 4 sqrt(K) u sum|x w|, beside what x brings along. Of rows of e4m3 the
    matrix units of Hopper keep 14 bits of what they add at once.
    """
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
            terms = (magnitude @ size.T).astype(np.float64)
            error = chain_error(weight.shape[1], terms)
            if op.types["x"] == FP8_TOKEN:
                error += _E4M3_SUM * terms
            errors.append(error + (error_of_x @ size.T if carried else 0.0))
    value = np.concatenate(values, axis=1)
    if not bounded:
        return Bounded(value)
    bias = np.abs(op["bias"]) if "bias" in op.call.inputs else 0.0
    return Bounded(value, np.concatenate(errors, axis=1) + 2 * U * (np.abs(value) + bias) + FLUSHED)


def _expert_linear(op: _Given, bounded: bool) -> Bounded:
    """Of each expert its pairs, as a linear."""
    weight, ids, count = op.call["weight"], op["ids"].reshape(-1), op.call.attrs["num_experts"]
    x, height = rows_of_pairs(op.call), weight.shape[0] // count
    error_of_x = np.repeat(as_rows(op.errors["x"], op["x"]), len(x) // max(1, len(op["x"])), axis=0)
    value, error = np.zeros((len(ids), height), np.float32), np.zeros((len(ids), height))
    for expert in np.unique(ids[ids < count]):
        rows = ids == expert
        inputs = {"x": x[rows], "weight": weight[expert * height : (expert + 1) * height]}
        if "bias" in op.call.inputs:
            inputs["bias"] = op["bias"][expert * height : (expert + 1) * height]
        part = _linear(_Given(OpCall(inputs, {}, op.call.step), {"x": error_of_x[rows]}, op.types), bounded)
        value[rows], error[rows] = part.value, part.error
    return Bounded(value, error if bounded else 0.0)


def _head_linear(op: _Given, bounded: bool) -> Bounded:
    """Each head as a linear."""
    heads, weight = op.call.attrs["num_heads"], op.call["weight"]
    columns = np.split(op["x"], heads, axis=1)
    errors, height = np.split(as_rows(op.errors["x"], op["x"]), heads, axis=1), weight.shape[0] // heads
    parts = []
    for head, (x, error) in enumerate(zip(columns, errors, strict=True)):
        call = OpCall({"x": x, "weight": weight[head * height : (head + 1) * height]}, {}, op.call.step)
        parts.append(_linear(_Given(call, {"x": error}, op.types), bounded))
    value = np.concatenate([part.value for part in parts], axis=1)
    return Bounded(value, np.concatenate([part.error for part in parts], axis=1) if bounded else 0.0)


def _kv_write(op: _Given) -> Bounded:
    """k and v are rounded to the type of the cache."""
    kv = op.call["kv"]
    OPS["kv_write"](op.call)
    shape = (op.call.step.num_tokens, op.call.attrs["num_kv_heads"], op.call.attrs["head_dim"])
    roles = [role for role in ("k", "v") if role in op.call.inputs]
    given = [(op[role].reshape(shape), as_rows(op.errors[role], op[role]).reshape(shape)) for role in roles]
    error_of = rounded_to_codes if kv.dtype in KV_CODES else rounded
    errors = tuple(error_of(value, error, kv.dtype) for value, error in given)
    return Bounded(kv, errors, tuple(round_kv(value, kv.dtype) for value, _ in given))


def _copied(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """Rows picked from x."""
    error = op.errors.get("x", 0.0)
    if not np.any(error):
        return [0.0]
    return [as_rows(error, op["x"])[op["rows"]]]


def _split(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    error = as_rows(op.errors["x"], op["x"])
    return list(np.split(error, np.cumsum(op.call.attrs["sizes"])[:-1], axis=-1))


def _join_heads(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    rows, heads = len(op["x"]), op.call.attrs["num_heads"]
    errors = [as_rows(op.errors[r], op[r]).reshape(rows, heads, op[r].shape[1] // heads) for r in ("x", "y")]
    return [np.concatenate(errors, axis=-1).reshape(values[0].shape)]


def _embed(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [0.0]


def _cast(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [rounded(op["x"], op.errors["x"], op.call.attrs["dtype"])]


def _add(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    error = as_rows(op.errors["x"], op["x"]) + op.errors["y"]
    return [error + 2 * U * np.abs(values[0])]


def _mul(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    x, y, ex, ey = op["x"], op["y"], op.errors["x"], op.errors["y"]
    return [np.abs(x) * ey + np.abs(y) * ex + ex * ey + 2 * U * np.abs(values[0]) + FLUSHED]


def _clamped_swiglu(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """As a unary of the gate, times an up that is at most SWIGLU_LIMIT + 1."""
    gate, up = op["x"].astype(np.float64), np.clip(op["y"].astype(np.float64), -SWIGLU_LIMIT, SWIGLU_LIMIT)
    size = np.minimum(np.abs(np.minimum(gate, SWIGLU_LIMIT)), 90)
    off = _SLOPES["silu"] * op.errors["x"] + (16 + 4 * SWIGLU_ALPHA * size) * U * size
    off_up = op.errors["y"] + 2 * U * (np.abs(up) + 1)
    own = 4 * U * np.abs(values[0]) + FLUSHED * (SWIGLU_LIMIT + 1)
    return [(np.abs(up + 1) + off_up) * off + size * off_up + own]


def _route(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """Logits are compared as they are; exponentials and their sum round. What a bias makes of that is in choices.py."""
    moved = as_rows(op.errors["x"], op["x"]).max(axis=-1, keepdims=True)
    gain = op["gain"] if "gain" in op.call.inputs else None
    if not op.call.attrs.get("shared", False):
        return [0.0, weight_error(op["x"], values[0], values[1], op.call.attrs, gain, moved)]
    error = weight_error(op["x"], values[0][:, :-1], values[1][:, :-1], op.call.attrs, gain, moved)
    return [0.0, np.concatenate([error, _shared_error(op, values[1][:, -1:])], axis=1)]


def _shared_error(op: _Given, weights: Array) -> Any:
    """[T, 1] of what an expert counts that every row has: one, or a sigmoid."""
    if "gate" not in op.call.inputs:
        return np.zeros(weights.shape)
    size = np.minimum(np.abs(op["gate"].astype(np.float64)), 90)
    return _SLOPES["sigmoid"] * as_rows(op.errors["gate"], op["gate"]) + (16 + 4 * size) * U * weights + FLUSHED


def _combine(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    weights = np.abs(op["weights"].astype(np.float64))
    if "ids" in op.call.inputs:
        counts = op["ids"] >= op.call.attrs["num_experts"]
        x, error, of_weights = np.abs(op["x"]), as_rows(op.errors["x"], op["x"]), as_rows(op.errors["weights"], weights)
        whole, off = (np.where(counts, each, 0).sum(axis=-1, keepdims=True) for each in (weights, of_weights))
        return [whole * error + (x + error) * (off + (weights.shape[1] + 1) * U * whole) + FLUSHED]
    shape = (*weights.shape, -1)
    x, error = np.abs(op["x"].astype(np.float64)).reshape(shape), as_rows(op.errors["x"], op["x"]).reshape(shape)
    of_weights = as_rows(op.errors["weights"], weights)
    terms = np.einsum("tk,tkn->tn", weights, x)
    own = (weights.shape[1] + 1) * U * terms + weights.shape[1] * FLUSHED
    return [np.einsum("tk,tkn->tn", weights, error) + np.einsum("tk,tkn->tn", of_weights, x + error) + own]


def _gate_rows(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    gate, is_softplus = np.abs(op["gate"].astype(np.float64)), op.call.attrs.get("kind") == "softplus"
    slope, most = (1.0, gate + 1) if is_softplus else (_SLOPES["sigmoid"], np.ones_like(gate))
    off = slope * as_rows(op.errors["gate"], gate) + (16 + 4 * np.minimum(gate, 90)) * U * most
    x, error = np.abs(op["x"]), as_rows(op.errors["x"], op["x"])
    off, most = (np.repeat(each, x.shape[-1] // gate.shape[-1], axis=-1) for each in (off, most))
    return [error * most + (x + error) * off + 2 * U * np.abs(values[0]) + FLUSHED * np.maximum(x, 1)]


def _depthwise_conv(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """A chain of products, and the slope of a silu."""
    weight = np.abs(op["weight"].astype(np.float64))
    width, x, error = weight.shape[1], np.abs(op["x"]).astype(np.float64), op.errors["x"]

    def summed(rows: Any) -> Any:
        padded = np.pad(np.broadcast_to(rows, x.shape), ((width // 2, width // 2), (0, 0)))
        return sum(weight[:, j] * padded[j : j + len(x)] for j in range(width))

    off = summed(error) + (width + 2) * U * (summed(x + error) + np.abs(op.call.inputs.get("bias", 0.0)))
    return [1.1 * off + 32 * U * np.abs(values[0]) + FLUSHED]


def _scale(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [abs(op.call.attrs["factor"]) * op.errors["x"] + 2 * U * np.abs(values[0])]


def _scale_by(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [np.abs(op["weight"].astype(np.float64)) * op.errors["x"] + 2 * U * np.abs(values[0])]


def _clamp(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """No rounding, and nothing farther apart than it was."""
    return [op.errors["x"]]


def _xielu(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """A dozen roundings, of an exponential of what is below 0, too."""
    x, error = np.abs(op["x"]).astype(np.float64), op.errors["x"]
    right, left = xielu_sides(op["weight"])
    slope = np.maximum(2 * right * (x + error), left) + XIELU_SLOPE
    own = 24 * U * (np.abs(values[0]) + left * (1 + x) + x)
    return [slope * error + own + FLUSHED * np.maximum(x, 1)]


def _unary(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    """16 roundings, and an exponential whose argument, and so whose error, grows with x."""
    x, error, kind = np.abs(op["x"]).astype(np.float64), op.errors["x"], op.call.attrs["kind"]
    slope = 2 * (x + error) if kind == "relu2" else _SLOPES[kind]
    own = (16 + 4 * np.minimum(x, 90)) * U * np.maximum(np.minimum(x, 90), np.abs(values[0]))
    return [slope * error + own + FLUSHED * np.maximum(x, 1)]


def _rms_norm(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [rms_norm_error(op.call, op.errors["x"])]


def _gain(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [gain_error(op.call, op.errors["x"])]


def _shift(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [op.errors["x"] + 2 * U * np.abs(values[0])]


def _squares(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [squares_error(op.call, op.errors["x"])]


def _row_norm(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [row_norm_error(op.call, op.errors)]


def _rope(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    attrs, place = op.call.attrs, 3 if op.call.attrs.get("side_by_side", False) else 2
    shape = [len(op["x"]), attrs["num_heads"], attrs["head_dim"] // 2]
    shape.insert(place, 2)
    x = np.abs(op["x"].astype(np.float64)).reshape(shape)
    error = as_rows(op.errors["x"], op["x"]).reshape(shape)
    positions = op["positions"][op["rows"]] if "rows" in op.call.inputs else op["positions"]
    table = np.abs(rope_table(attrs["rope"], positions).astype(np.float64))
    cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    both = error + 3 * U * x
    first, second = np.moveaxis(both, place, 0)
    off = np.stack([first * cos + second * sin, second * cos + first * sin], axis=place)
    if "ahead" in attrs:  # a logarithm, a product and a sum, each rounded; and by what is rotated once more
        by, size = np.abs(growth(op.call)), growth(OpCall(_sizes(op.call), attrs, op.call.step))
        near, far = np.moveaxis(x, place, 0)
        turned = np.stack([near * cos + far * sin, far * cos + near * sin], axis=place)
        off = off * by[:, :, None, None] + (turned + off) * (6 * U * size)[:, :, None, None]
    return [off.reshape(op["x"].shape) + FLUSHED]


def _sizes(call: OpCall) -> dict[str, Any]:
    """The inputs of a rope, slopes and starts as they would add up."""
    return {role: np.abs(v) if role in ("slope", "start") else v for role, v in call.inputs.items()}


def _join_sums(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [join_sums_error(op.call, op.errors) + 2 * U * np.abs(values[0]) + FLUSHED]


def _attention(op: _Given, values: tuple[Array, ...]) -> list[Any]:
    return [attention_error(op.call) + 2 * U * np.abs(values[0])]


_RULES: Mapping[str, Callable[[_Given, tuple[Array, ...]], list[Any]]] = {
    "embed": _embed,
    "cast": _cast,
    "rms_norm": _rms_norm,
    "gain": _gain,
    "shift": _shift,
    "squares": _squares,
    "row_norm": _row_norm,
    "split": _split,
    "join_heads": _join_heads,
    "rope": _rope,
    "choose_keys": lambda op, _: [0.0],
    "attention": _attention,
    "join_sums": _join_sums,
    "add": _add,
    "mul": _mul,
    "clamped_swiglu": _clamped_swiglu,
    "unary": _unary,
    "scale": _scale,
    "scale_by": _scale_by,
    "clip": _clamp,
    "clamp": _clamp,
    "xielu": _xielu,
    "gather_rows": _copied,
    "route": _route,
    "combine": _combine,
    "depthwise_conv": _depthwise_conv,
    "gate_rows": _gate_rows,
    "add_parts": lambda op, _: [add_parts_error(op.call, op.errors)],
    "balance": lambda op, _: [balance_error(op.call, op.errors)],
    "match_length": lambda op, _: [match_length_error(op.call, op.errors)],
    "cut": lambda op, _: [cut_error(op.call, op.errors)],
}
