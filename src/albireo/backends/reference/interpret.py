"""Runs a whole graph, base or fused, node by node: the oracle of the compiler and of every kernel.

Called by tests and by whoever compares a backend. Checks the shape of every value and looks for NaN. Does not know
models or devices, and is in no hurry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.backends.reference import (
    adapter,
    attention,
    elementwise,
    experts,
    linear,
    recurrent,
    rms_norm,
    rope,
    rows,
    streams,
)
from albireo.backends.reference.call import Adapters, Array, Exchange, OpCall
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_matrix
from albireo.backends.step_inputs import StepInputs
from albireo.backends.vectors import altered
from albireo.errors import InvariantError
from albireo.graph.node import Graph, Node, Value

#: Base op -> its definition. In the order of graph.ops.OPS.
OPS: Mapping[str, Callable[[OpCall], tuple[Any, ...]]] = {
    "embed": rows.embed,
    "given": rows.given,
    "add_given": rows.add_given,
    "cast": elementwise.cast,
    "rms_norm": rms_norm.rms_norm,
    "gain": rms_norm.gain,
    "shift": rms_norm.shift,
    "squares": rms_norm.squares,
    "row_norm": rms_norm.row_norm,
    "linear": linear.linear,
    "head_linear": linear.head_linear,
    "add_parts": streams.add_parts,
    "match_length": streams.match_length,
    "cut": streams.cut,
    "balance": streams.balance,
    "join_heads": rows.join_heads,
    "adapter": adapter.adapter,
    "route": experts.route,
    "expert_linear": experts.expert_linear,
    "combine": experts.combine,
    "gate_rows": experts.gate_rows,
    "all_reduce": linear.all_reduce,
    "split": rows.split,
    "rope": rope.rope,
    "kv_write": attention.kv_write,
    "choose_keys": attention.choose_keys,
    "attention": attention.attention,
    "join_sums": attention.join_sums,
    "pool_rows": recurrent.pool_rows,
    "causal_conv": recurrent.causal_conv,
    "depthwise_conv": rows.depthwise_conv,
    "gated_delta_rule": recurrent.gated_delta_rule,
    "selective_state": recurrent.selective_state,
    "selective_scan": recurrent.selective_scan,
    "add": elementwise.add,
    "mul": elementwise.mul,
    "clamped_swiglu": elementwise.clamped_swiglu,
    "unary": elementwise.unary,
    "scale": elementwise.scale,
    "scale_by": elementwise.scale_by,
    "clip": elementwise.clip,
    "clamp": elementwise.clamp,
    "xielu": elementwise.xielu,
    "gather_rows": rows.gather_rows,
    "top_logits": rows.top_logits,
}


@dataclass(slots=True)
class Interpretation:
    """What a step gave.

    Fields:
        outputs: the graph's outputs by name, the KV cache aside.
        values: with keep, every array by the name of its Value; inside a fused node as <its first output>/<name>.
    """

    outputs: dict[str, Array]
    values: dict[str, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.outputs[name]


def interpret(
    graph: Graph,
    inputs: StepInputs,
    weights: Mapping[str, Array],
    kv: ReferenceKV,
    *,
    keep: bool = False,
    exchange: Exchange | None = None,
    adapters: Adapters = (),
) -> Interpretation:
    """Run one step.

    Args:
        weights: checkpoint tensors by name, as float32; rounded here to the type a constant is declared with.
        kv: read, and written in place; what recurrent ops keep of sequences likewise.
        keep: also return every value on the way.
        exchange: for one of several ranks, see OpCall; ranks.py runs them together.
        adapters: what the slots of the step's adapters hold.
    Raises: InvariantError naming the node whose output has the wrong shape or holds NaN.
    """
    inputs.check(kv.block_size)
    sizes = inputs.sizes | {"P": inputs.num_tokens * graph.top_k}
    run = _Run(inputs, sizes, weights, kv, {} if keep else None, exchange, adapters)
    env = run.graph(graph, {}, "")
    outputs = {name: env[v] for name, v in graph.outputs.items() if v.type.dtype != "kv"}
    return Interpretation(outputs, run.kept or {})


@dataclass(slots=True)
class _Run:
    """One call of interpret()."""

    inputs: StepInputs
    sizes: Mapping[str, int]
    weights: Mapping[str, Array]
    kv: ReferenceKV
    kept: dict[str, Array] | None
    exchange: Exchange | None
    adapters: Adapters

    def graph(self, graph: Graph, roles: Mapping[str, Any], path: str) -> dict[Value, Any]:
        """Run graph; roles are the values of its inputs by name, in their absence those of the step."""
        env: dict[Value, Any] = {}
        for name, value in graph.inputs.items():
            env[value] = roles[name] if name in roles else self.step_input(name)
        for value in graph.constants.values():
            env[value] = constant_array(value, self.weights)
        for index, node in enumerate(graph.nodes):
            self.node(node, env, f"{path}node {index} {node.op} ({node.origin or 'no origin'})", path)
        return env

    def step_input(self, name: str) -> Any:
        if name == "token_types" and self.inputs.token_types is None:
            return np.zeros(self.inputs.num_tokens, np.int32)
        return self.kv if name == "kv" else getattr(self.inputs, name)

    def node(self, node: Node, env: dict[Value, Any], label: str, path: str) -> None:
        values = {role: env[value] for role, value in node.inputs.items()}
        if node.op == "fused":
            results = self.body(node, values, label)
        else:
            try:
                call = OpCall(values, node.attrs, self.inputs, self.exchange, self.adapters, self.kv.states)
                results = OPS[node.op](call)
            except InvariantError as error:
                raise InvariantError(f"{label}: {error}") from error
        for value, result in zip(node.outputs, results, strict=True):
            if value.type.dtype != "kv":
                self.check(value, result, label)
                if self.kept is not None:
                    self.kept[path + value.name] = result
            env[value] = result

    def body(self, node: Node, roles: Mapping[str, Any], label: str) -> tuple[Any, ...]:
        if node.body is None:
            raise InvariantError(f"{label}: a fused node without a body")
        prefix = f"{node.outputs[0].name}/" if node.outputs else ""
        env = self.graph(node.body, roles, prefix)
        return tuple(env[value] for value in node.body.outputs.values())

    def check(self, value: Value, result: Array, label: str) -> None:
        shape = tuple(self.sizes[dim] if isinstance(dim, str) else dim for dim in value.type.dims)
        if result.shape != shape:
            raise InvariantError(f"{label}: {value} is {result.shape}, its type {value.type} means {shape}")
        wanted = np.int32 if value.type.dtype == "int32" else np.float32
        if result.dtype != wanted:
            raise InvariantError(f"{label}: {value} is {result.dtype}, not {np.dtype(wanted)}")
        if wanted == np.float32 and np.isnan(result).any():
            where = [int(i) for i in np.argwhere(np.isnan(result))[0]]
            raise InvariantError(f"{label}: {value} holds NaN, first at {where}")


def constant_array(value: Value, weights: Mapping[str, Array]) -> Array:
    """A constant's rows put together from checkpoint tensors, rounded to its type, as float32.

    Raises: InvariantError when the rows do not make up the declared shape.
    """
    assert value.constant is not None
    tail, columns = tuple(int(dim) for dim in value.type.dims[1:]), value.constant.columns
    parts = []
    for segment in value.constant.segments:
        if segment.source is None:
            parts.append(np.zeros((len(segment), *tail), np.float32))
        else:
            rows = weights[segment.source][segment.start : segment.stop]
            parts.append(altered(rows, value.constant) if columns is None else rows[:, slice(*columns)])
    array = round_matrix(parts[0] if len(parts) == 1 else np.concatenate(parts), value.type.dtype)
    if array.shape != value.type.dims:
        raise InvariantError(f"constant {value} is {array.shape}, its type is {value.type}")
    return array
