"""Runs the nodes of a stage on a batch of windows, in float32.

Called by run.py and sensitivity.py. The ops of backends/reference sum in float64 for the sake of an oracle; here
matrix products, attention and activations are float32, ten times as fast. Rounding to the compute type is the graph's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.step_inputs import StepInputs
from albireo.errors import ConfigError
from albireo.graph.node import Node, Value
from albireo.quantization.encoded import F32
from albireo.quantization.rounding import round_tokens

_EMPTY = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of text, each read from its own beginning.

    Fields: token_ids: the windows, one after the other, [T] in all; lengths: of each.
    """

    token_ids: NDArray[np.int32]
    lengths: tuple[int, ...]

    @property
    def positions(self) -> NDArray[np.int32]:
        return np.concatenate([np.arange(n, dtype=np.int32) for n in self.lengths])

    def step(self) -> StepInputs:
        """As a step whose every row is wanted; without a cache, since attention here keeps keys and values itself."""
        rows = np.arange(len(self.token_ids), dtype=np.int32)
        starts = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        lengths = np.asarray(self.lengths, np.int32)
        table = np.zeros((len(lengths), 1), np.int32)
        return StepInputs(self.token_ids, self.positions, rows, starts, lengths, table, rows, _EMPTY)


#: Values by what made them; what lies between two stages.
Env = dict[Value, Any]


def run_nodes(
    nodes: Sequence[Node],
    env: Mapping[Value, Any],
    batch: Batch,
    constants: Mapping[Value, Any],
    keep: Sequence[Value],
    rounded: frozenset[str] = frozenset(),
) -> Env:
    """The values to keep, of env or computed.

    Args:
        env: what was kept before.
        constants: that the nodes read, as float32; a table to embed from may be anything with rows.
        rounded: names of weights whose inputs are rounded token by token to int8, as kernels do.
    Raises: ConfigError naming the node whose values are not finite.
    """
    step = batch.step()
    known: Env = dict(env)
    for node in nodes:
        roles = {role: _role(value, known, constants, step) for role, value in node.inputs.items()}
        for value, result in zip(node.outputs, _run(node, roles, step, rounded), strict=True):
            if isinstance(result, np.ndarray) and not np.isfinite(result).all():
                raise ConfigError(
                    f"{node.origin}: {node.op} gives numbers that are not finite on the calibration text; the model "
                    "is damaged, or it overflows in this type"
                )
            known[value] = result
    return {value: known[value] for value in keep}


def _role(value: Value, known: Env, constants: Mapping[Value, Any], step: StepInputs) -> Any:
    if value in known:
        return known[value]
    return constants[value] if value.constant is not None else _step_input(step, value)


def _step_input(step: StepInputs, value: Value) -> Any:
    return None if value.type.dtype == "kv" else getattr(step, value.name)


def _run(node: Node, roles: Mapping[str, Any], step: StepInputs, rounded: frozenset[str]) -> tuple[Any, ...]:
    if node.op == "linear":
        return (_linear(node, roles, rounded),)
    if node.op == "kv_write":
        return ((roles["k"], roles["v"]),)
    if node.op == "attention":
        keys, values = roles["kv"]
        lengths = step.context_len.tolist()
        return (_attention(node.attrs, roles["q"], keys, values, lengths, roles.get("sinks")),)
    if node.op == "rms_norm" and "centered" not in node.attrs:
        return (_rms_norm(node.attrs, roles["x"], roles.get("weight")),)
    if node.op == "unary" and node.attrs["kind"] == "silu":
        x = roles["x"]
        with np.errstate(over="ignore"):
            return (x / (1 + np.exp(-x)),)
    return OPS[node.op](OpCall(roles, node.attrs, step))


def _linear(node: Node, roles: Mapping[str, Any], rounded: frozenset[str]) -> F32:
    x = roles["x"]
    if node.inputs["weight"].name in rounded:
        q, scale = round_tokens(x)
        y = (q @ roles["weight"].T) * scale
    else:
        y = x @ roles["weight"].T
    return np.asarray(y + roles["bias"] if "bias" in roles else y, np.float32)


def _rms_norm(attrs: Mapping[str, Any], x: F32, weight: F32 | None) -> F32:
    parts = x.reshape(len(x), attrs["num_heads"], -1)
    mean_square = np.mean(parts * parts, axis=-1, keepdims=True, dtype=np.float64)
    factor = (1 / np.sqrt(mean_square + attrs["eps"])).astype(np.float32)
    normed = parts * factor if weight is None else parts * factor * weight
    return np.asarray(normed.reshape(x.shape), np.float32)


def _attention(attrs: Mapping[str, Any], q: F32, k: F32, v: F32, lengths: list[int], sinks: F32 | None) -> F32:
    """q: [T, H * D]; k, v: [T, K * D], of the windows of lengths; sinks: [H]."""
    heads, kv_heads, size = attrs["num_heads"], attrs["num_kv_heads"], attrs["head_dim"]
    out, start = np.empty_like(q), 0
    for length in lengths:
        rows = slice(start, start + length)
        # [K, group, n, D] against [K, 1, n, D]
        queries = q[rows].reshape(length, kv_heads, heads // kv_heads, size).transpose(1, 2, 0, 3)
        keys = k[rows].reshape(length, kv_heads, 1, size).transpose(1, 2, 3, 0)
        values = v[rows].reshape(length, kv_heads, 1, size).transpose(1, 2, 0, 3)
        scores = (queries @ keys) * np.float32(attrs["scale"])
        if attrs["softcap"] is not None:
            scores = attrs["softcap"] * np.tanh(scores / np.float32(attrs["softcap"]))
        scores[..., ~_visible(length, attrs["window"], attrs.get("in_chunks", False))] = -np.inf
        # one more score in each row, which no value has
        sink = np.float32(-np.inf) if sinks is None else sinks.reshape(kv_heads, heads // kv_heads, 1, 1)
        most = np.maximum(scores.max(axis=-1, keepdims=True), sink)
        scores -= most
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True) + np.exp(sink - most)
        out[rows] = (scores @ values).transpose(2, 0, 1, 3).reshape(length, heads * size)
        start += length
    return out


def _visible(length: int, window: int | None, in_chunks: bool) -> NDArray[np.bool_]:
    seen = np.tri(length, dtype=np.bool_)
    if window is not None and in_chunks:
        chunks = np.arange(length) // window
        return np.asarray(seen & (chunks[:, None] == chunks[None, :]))
    return seen if window is None else seen & ~np.tri(length, k=-window, dtype=np.bool_)
