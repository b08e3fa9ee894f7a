"""What became of the ops of one layer: each call, the ops it replaced, and the bytes before and after.

Called by the pictures of this room and by cli/inspect. Fused nodes carry their bodies and values keep their names, so
an op of the model is found again by the name of what it computes. Does not draw.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import passes_of, run_passes, shard_pass
from albireo.dtypes import itemsize
from albireo.encodings import ENCODINGS
from albireo.errors import ConfigError, InvariantError
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program import Call, Program

_LAYER = re.compile(r"\blayers\.(\d{1,9})\b")


@dataclass(frozen=True, slots=True)
class Explained:
    """A model before and after: calls[i] of the program performs nodes[i] of the fused graph."""

    base: Graph
    fused: Graph
    program: Program


@dataclass(eq=False, slots=True)
class Group:
    """One call and the ops of the model that it stands for.

    Fields:
        idx: of the call in the program; node: the fused node behind it.
        members: base ops it replaced, in the model's order; none for a call that a pass added.
        dropped: base ops on the way that no call performs, as they change nothing.
        before_bytes, after_bytes: activations (and keys and values) moved for one row: read and written op by op, and
            by the call.
        weight_bytes: of the constants the call reads whole.
    """

    idx: int
    call: Call
    node: Node
    members: list[Node] = field(default_factory=list)
    dropped: list[Node] = field(default_factory=list)
    before_bytes: int = 0
    after_bytes: int = 0
    weight_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        return self.before_bytes - self.after_bytes


@dataclass(frozen=True, slots=True)
class Story:
    """One layer: its groups in the order in which they run."""

    layer: int
    groups: tuple[Group, ...]

    @property
    def num_ops(self) -> int:
        return sum(len(group.members) + len(group.dropped) for group in self.groups)

    @property
    def before_bytes(self) -> int:
        return sum(group.before_bytes for group in self.groups)

    @property
    def after_bytes(self) -> int:
        return sum(group.after_bytes for group in self.groups)

    @property
    def weight_bytes(self) -> int:
        return sum(group.weight_bytes for group in self.groups)


def explain(base: Graph, program: Program, part: Part | None = None) -> Explained:
    """Run the passes that made a program once more, to see the fused graph behind it.

    Args: part: of the rank that the program is for; base is then told as that rank computes it, cut before any fusion.
    Raises: InvariantError when its calls are not the nodes of that graph.
    """
    if part is not None:
        base, _ = run_passes(base, (shard_pass(part),))
    fused, _ = run_passes(base, passes_of(program))
    families = [call.family for call in program.calls]
    if families != [node.family for node in fused.nodes]:
        raise InvariantError(f"{len(families)} calls are not the {len(fused.nodes)} nodes they were made from")
    return Explained(base, fused, program)


def layers_of(graph: Graph) -> list[int]:
    """Numbers of the layers that the origins of a graph's nodes tell of, in order."""
    return sorted({layer for node in graph.nodes if (layer := layer_of(node.origin)) is not None})


def layer_of(origin: str) -> int | None:
    """layers.3.attn.q -> 3."""
    match = _LAYER.search(origin)
    return int(match[1]) if match else None


def layer_story(explained: Explained, layer: int | None = None) -> Story:
    """The groups of one layer, by default of a middle one.

    Raises: ConfigError when there is no such layer.
    """
    known = layers_of(explained.base)
    if not known:
        raise ConfigError("the graph has no layers to draw; its nodes carry no origin such as layers.0")
    layer = known[(len(known) - 1) // 2] if layer is None else layer
    if layer not in known:
        raise ConfigError(f"layer {layer} is asked for, the model has layers {known[0]} to {known[-1]}")
    owners, groups = _owners(explained), _groups(explained)
    touched: set[int] = set()
    for node, owner in owners.items():
        if layer_of(node.origin) == layer:
            touched.add(owner)
    touched |= {group.idx for group in groups if layer_of(group.call.origin) == layer}
    replaced = _replaced(explained.fused)
    for node, owner in owners.items():
        if owner in touched:
            is_performed = any(v.name in replaced for v in node.outputs)
            (groups[owner].members if is_performed else groups[owner].dropped).append(node)
    for idx in touched:
        _count_bytes(explained.program, groups[idx])
    return Story(layer, tuple(groups[idx] for idx in sorted(touched)))


def row_bytes(value: Value) -> int:
    """Bytes of one row of an activation; none of constants, step arrays and the KV cache."""
    if value.is_constant or value.type.dtype == "kv" or len(value.type.dims) < 2:
        return 0
    return itemsize(value.type.dtype) * math.prod(int(dim) for dim in value.type.dims[1:])


def op_bytes(node: Node, program: Program) -> int:
    """Activations, keys and values that one op by itself reads and writes for one row."""
    total = sum(row_bytes(value) for value in (*dict.fromkeys(node.inputs.values()), *node.outputs))
    return total + (program.kv.layers[node.attrs["layer"]].position_bytes if node.op == "kv_write" else 0)


def constant_bytes(node: Node) -> int:
    """Bytes of the constants an op reads, as the graph has them."""
    constants = [value for value in node.inputs.values() if value.is_constant]
    return round(sum(_weight_bytes(v.type.dtype) * math.prod(int(dim) for dim in v.type.dims) for v in constants))


def _weight_bytes(dtype: str) -> float:
    """Bytes of one element; of what is in few bits with its part of the scales."""
    return ENCODINGS[dtype].bytes_per_weight if dtype in ENCODINGS else itemsize(dtype)


def _groups(explained: Explained) -> list[Group]:
    pairs = zip(explained.program.calls, explained.fused.nodes, strict=True)
    return [Group(idx, call, node) for idx, (call, node) in enumerate(pairs)]


def _replaced(fused: Graph) -> dict[str, int]:
    """Name of a value -> the fused node that computes it, inside or as its result."""
    found: dict[str, int] = {}
    for idx, node in enumerate(fused.nodes):
        inner = [v for op in node.body.nodes for v in op.outputs] if node.body is not None else []
        for value in (*inner, *node.outputs):
            found.setdefault(value.name, idx)
    return found


def _owners(explained: Explained) -> dict[Node, int]:
    """Base op -> the call that does its work; of an op that is gone, the call behind or before it."""
    replaced, users = _replaced(explained.fused), explained.base.users()
    owners: dict[Node, int] = {}
    for node in reversed(explained.base.nodes):
        found = [replaced[v.name] for v in node.outputs if v.name in replaced]
        found = found or [owners[user] for v in node.outputs for user in users.get(v, ())]
        if found:
            owners[node] = min(found)
    for node in explained.base.nodes:
        if node not in owners:
            before = [owners[v.producer] for v in node.inputs.values() if v.producer in owners]
            owners[node] = max(before, default=0)
    return {node: owners[node] for node in explained.base.nodes}


def _count_bytes(program: Program, group: Group) -> None:
    group.before_bytes = sum(op_bytes(node, program) for node in (*group.members, *group.dropped))
    group.after_bytes = call_bytes(program, group.call)
    group.weight_bytes = call_weight_bytes(program, [group.call])


def call_bytes(program: Program, call: Call) -> int:
    """Activations, keys and values that a call reads and writes for one row."""
    buffers = [program.buffers[name] for name in call.args.values() if name in program.buffers]
    moved = sum(buffer.cols * itemsize(buffer.dtype) for buffer in buffers)
    return moved + (program.kv.layers[call.attrs["layer"]].position_bytes if call.family == "qkv_rope_kv" else 0)


def call_weight_bytes(program: Program, calls: Sequence[Call]) -> int:
    """Bytes of constants that calls read whole, each once: of tables they read rows, of experts those of one token."""
    parts: dict[str, tuple[int, int]] = {}
    for call in calls:
        part = (call.attrs["top_k"], call.attrs["num_experts"]) if call.family == "expert_linear" else (1, 1)
        parts |= {name: part for role, name in call.args.items() if role not in ("table", "rope")}
    read = {name: part for name, part in parts.items() if name in program.constants}
    return sum(program.constants[name].num_bytes * some // whole for name, (some, whole) in read.items())
