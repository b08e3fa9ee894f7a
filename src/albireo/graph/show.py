"""Graph, program and the compiler's report as text.

Called by cli/inspect and by tests; what it prints is for reading, not for parsing. Layers that are alike are shown
once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from albireo.dtypes import itemsize
from albireo.graph.node import Graph, Node, Value
from albireo.graph.private_norms import FEW_ROWS, few_barriers
from albireo.graph.program import Call, Program
from albireo.graph.program_spec import FAMILIES
from albireo.graph.report import Firing, PassRecord

#: Attributes that only say which layer it is.
_OF_LAYERS = ("layer", "state")
_LAYER = re.compile(r"\blayers\.(\d+)")


@dataclass(frozen=True, slots=True)
class Totals:
    """A program in numbers.

    Fields:
        barriers: of a step of at most FEW_ROWS rows; many_barriers: of a larger one.
        bytes_per_token: moved by a step of one token whose arg max is wanted: weights, vectors and activations; the
            KV cache aside.
        kv_bytes_per_position: KV cache read by that step for each position of the context.
    """

    ops_before: int
    ops_after: int
    barriers: int
    many_barriers: int
    arena_bytes: int
    weight_bytes: int
    bytes_per_token: int
    kv_bytes_per_position: int

    def __str__(self) -> str:
        return (
            f"ops {self.ops_before} -> {self.ops_after} calls, {self.barriers} barriers per step "
            f"({self.many_barriers} beyond {FEW_ROWS} rows), "
            f"arena {self.arena_bytes:,} B, constants {self.weight_bytes:,} B, "
            f"{self.bytes_per_token:,} B per token + {self.kv_bytes_per_position:,} B per position of context"
        )


def totals(program: Program) -> Totals:
    """The numbers under a report."""
    records: tuple[PassRecord, ...] = program.report
    return Totals(
        ops_before=records[0].ops_before if records else len(program.calls),
        ops_after=len(program.calls),
        barriers=few_barriers(program),
        many_barriers=sum(call.barrier for call in program.calls),
        arena_bytes=program.arena_bytes,
        weight_bytes=program.weight_bytes,
        bytes_per_token=sum(_bytes_per_row(program, call) for call in program.calls if call.rows != "R"),
        kv_bytes_per_position=program.kv.position_bytes,
    )


def show_graph(graph: Graph, *, fold: bool = True, expand: bool = False) -> str:
    """Inputs, constants in total, a line a node, outputs. fold: like layers once; expand: the bodies of fused nodes."""
    inputs = ", ".join(f"{v}: {v.type}" for v in graph.inputs.values())
    sizes = sum(_num_bytes(v) for v in graph.constants.values())
    head = [f"inputs     {inputs}", f"constants  {len(graph.constants)} of {sizes:,} B"]
    lines = ((node.origin, _node_shape(node), _node_lines(node, expand)) for node in graph.nodes)
    outputs = ", ".join(f"{name} = {value}" for name, value in graph.outputs.items())
    return "\n".join([*head, *_fold(lines, fold), f"outputs    {outputs}"])


def show_program(program: Program, *, fold: bool = True) -> str:
    """Constants by packing, buffers with offsets, a line a call, outputs."""
    kv = program.kv
    lines = [f"constants  {len(program.constants)} of {program.weight_bytes:,} B"]
    lines += [f"           {text}" for text in _packings(program)]
    lines.append(f"arena      {program.arena_bytes:,} B for {_pairs(program.maxima)} rows")
    for b in program.buffers.values():
        lines.append(f"           {b.name}: {b.dtype}[{b.rows}, {b.cols}] at {b.offset:,}")
    for (heads, dim), count in Counter((layer.num_kv_heads, layer.head_dim) for layer in kv.layers).items():
        lines.append(f"kv         {count} layers x {heads} heads x {dim} {kv.dtype}, blocks of {kv.block_size}")
    if program.states:
        lines.append(f"states     {len(program.states.shapes)} of each sequence, {program.states.slot_bytes:,} B")
    calls = ((c.origin, _LAYER.sub("layers.*", _call_line(c, layer=False)), [_call_line(c)]) for c in program.calls)
    lines += _fold(calls, fold)
    lines.append(f"outputs    {_pairs(program.outputs)}")
    return "\n".join(lines)


def show_report(program: Program, *, every: bool = False) -> str:
    """What each pass did: where it fired (the first place, or every), what it saved, where it did not fire and why."""
    blocks = ["\n".join(_record_lines(record, every)) for record in program.report]
    return "\n".join([*blocks, f"total: {totals(program)}"])


def _record_lines(record: PassRecord, every: bool) -> Iterator[str]:
    yield f"{record.name} · {record.why} ({record.numerics})"
    if record.outcome:
        yield f"  {record.outcome}"
    for firing in record.firings if every else record.firings[:1]:
        yield from _firing_lines(firing)
    yield from (f"  {note}" for note in record.notes)
    yield from (f"  {line}" for line in record.refused)


def _firing_lines(firing: Firing) -> Iterator[str]:
    for title, texts in (("before", firing.before), ("after ", firing.after or ("nothing",))):
        for i, text in enumerate(texts):
            yield f"  {title if i == 0 else '      '}  {text}"


def _fold(items: Iterable[tuple[str, str, list[str]]], fold: bool) -> Iterator[str]:
    """items: (origin, text without layer numbers, lines). A run of layers whose texts are equal is shown once."""
    groups: list[tuple[int | None, list[str], list[str]]] = []
    for origin, shape, lines in items:
        match = _LAYER.search(origin)
        layer = int(match[1]) if match and fold else None
        if layer is None or not groups or groups[-1][0] != layer:
            groups.append((layer, [], []))
        groups[-1][1].append(shape)
        groups[-1][2].extend(lines)
    i = 0
    while i < len(groups):
        layer, shapes, lines = groups[i]
        last = i
        while layer is not None and last + 1 < len(groups) and groups[last + 1][1] == shapes:
            last += 1
        if last > i:
            yield f"layers {layer} to {groups[last][0]}, {last - i + 1} alike:"
        yield from (f"  {line}" for line in lines)
        i = last + 1


def _node_lines(node: Node, expand: bool) -> list[str]:
    lines = [f"{node}    # {node.origin}" if node.origin else str(node)]
    if expand and node.body is not None:
        lines += [f"    | {inner}" for inner in node.body.nodes]
    return lines


def _node_shape(node: Node) -> str:
    attrs = {name: value for name, value in node.attrs.items() if name not in _OF_LAYERS}
    types = [str(v.type) for v in (*node.inputs.values(), *node.outputs)]
    return f"{node.family or node.op} {list(node.inputs)} {attrs} {types} {_LAYER.sub('', node.origin)}"


def _call_line(call: Call, layer: bool = True) -> str:
    outputs = FAMILIES[call.family].outputs
    args = ", ".join(f"{role}={name}" for role, name in call.args.items() if role not in outputs)
    attrs = _pairs({k: v for k, v in call.attrs.items() if layer or k not in _OF_LAYERS})
    args = f"{args}; {attrs}" if attrs else args
    results = ", ".join(call.args[role] for role in outputs if role in call.args)
    meet = ", barrier" if call.barrier else ""
    return f"{results} = {call.family}({args})    # {call.kernel}, {call.rows} {call.split}{meet}"


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{k}={_number(v)}" for k, v in values.items())


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _packings(program: Program) -> Iterator[str]:
    groups: dict[str, list[int]] = {}
    for constant in program.constants.values():
        groups.setdefault(constant.packing, []).append(constant.num_bytes)
    for packing, sizes in groups.items():
        yield f"{packing}: {len(sizes)} of {sum(sizes):,} B"


def _num_bytes(value: Value) -> int:
    size = itemsize(value.type.dtype)
    for dim in value.type.dims:
        size *= int(dim)
    return size


def _bytes_per_row(program: Program, call: Call) -> int:
    """Bytes a call moves for one row: a weight is read whole, of tables one row."""
    total = 0
    for role, name in call.args.items():
        buffer, constant = program.buffers.get(name), program.constants.get(name)
        if buffer is not None:
            total += buffer.cols * itemsize(buffer.dtype)
        elif (constant is not None and role == "table") or (constant is not None and constant.rope is not None):
            total += constant.num_bytes // constant.rows
        elif constant is not None and call.family == "expert_linear":
            total += constant.num_bytes * call.attrs["top_k"] // call.attrs["num_experts"]
        elif constant is not None:
            total += constant.num_bytes
    return total
