"""Where activations live: lifetimes -> offsets in one arena.

Called by pipeline.py. place() knows numbers only; plan_memory() makes them from a fused graph. One plan serves every
step: sizes are those of the largest step, and a smaller one touches less of each buffer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from albireo.dtypes import itemsize
from albireo.graph.node import Graph, Node, Value
from albireo.graph.program import Buffer, row_stride
from albireo.graph.program_spec import ALIGNMENT
from albireo.graph.report import PassRecord
from albireo.graph.spec import symbol_rows

WHY = "activations that never live at the same time share bytes, and a step allocates nothing"

#: What a buffer is called, after the family that writes it first; the letters models are written with.
_NAMES = {"embed": "x", "norm": "h", "qkv_rope_kv": "q", "attention": "a", "linear": "m", "linear_norm": "h"}
_NAMES |= {"linear_parts": "m", "two_norms": "h", "head_rows": "q"}
_NAMES |= {"causal_conv": "c", "gated_delta_rule": "d", "selective_state": "s", "selective_scan": "s"}
_NAMES |= {
    "choose_keys": "c",
    "depthwise_conv": "c",
    "add_parts": "x",
    "mix_streams": "x",
    "read_streams": "h",
    "expert_linear": "e",
    "route": "r",
    "combine": "x",
    "gate_rows": "x",
    "adapter": "low",
}


@dataclass(frozen=True, slots=True)
class Lifetime:
    """num_bytes needed from call first to call last, both included."""

    num_bytes: int
    first: int
    last: int

    @property
    def aligned_bytes(self) -> int:
        return -(-self.num_bytes // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Placement:
    """offsets in the order of the lifetimes; peak: bytes used in all; lower_bound: most that live at once."""

    offsets: tuple[int, ...]
    peak: int
    lower_bound: int


@dataclass(slots=True)
class MemoryPlan:
    """buffers by name, the buffer name of each activation, and the size of the arena."""

    buffers: dict[str, Buffer] = field(default_factory=dict)
    names: dict[Value, str] = field(default_factory=dict)
    arena_bytes: int = 0


def place(lifetimes: Sequence[Lifetime]) -> Placement:
    """Offsets, largest first, each in the smallest gap it fits, such that no two overlap in time and bytes.

    Cost: O(n log n + n * those alive together).
    """
    offsets = [0] * len(lifetimes)
    alive: dict[int, list[int]] = {}
    for idx in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].aligned_bytes, lifetimes[i].first)):
        span = range(lifetimes[idx].first, lifetimes[idx].last + 1)
        neighbours = {other for time in span for other in alive.get(time, ())}
        taken = sorted((offsets[n], offsets[n] + lifetimes[n].aligned_bytes) for n in neighbours)
        offsets[idx] = _best_gap(taken, lifetimes[idx].aligned_bytes)
        for time in span:
            alive.setdefault(time, []).append(idx)
    at_once = [sum(lifetimes[i].aligned_bytes for i in group) for group in alive.values()]
    ends = [offset + lifetime.aligned_bytes for offset, lifetime in zip(offsets, lifetimes, strict=True)]
    return Placement(tuple(offsets), max(ends, default=0), max(at_once, default=0))


def plan_memory(graph: Graph, maxima: Mapping[str, int]) -> tuple[MemoryPlan, PassRecord]:
    """Buffers for every activation of a fused graph; residual adds happen in place where they may.

    Values of equal type that got equal bytes share one Buffer, so that a program names few.
    """
    record = PassRecord("plan_memory", WHY, "exact", len(graph.nodes), len(graph.nodes))
    groups = _alias_groups(graph)
    lifetimes = [_lifetime(graph, group, maxima) for group in groups]
    placement = place(lifetimes)
    plan = MemoryPlan(arena_bytes=placement.peak)
    known: dict[tuple[Any, ...], str] = {}
    for group, offset in zip(groups, placement.offsets, strict=True):
        # parts lie side by side in the same rows; others are written one over another
        within = sum(map(_columns, group.values)) if group.are_parts else 0
        for values in [[value] for value in group.values] if within else [group.values]:
            first, stem = values[0], _stem(graph, values[0], plan.names)
            at = first.type.dtype, symbol_rows(first), _columns(first), offset, within
            if (at, stem) not in known:
                known[at, stem] = _fresh_name(stem, plan.buffers)
                plan.buffers[known[at, stem]] = Buffer(known[at, stem], *at)
            plan.names.update(dict.fromkeys(values, known[at, stem]))
            offset += _columns(first) * itemsize(first.type.dtype)
    in_place = sum(len(group.values) - 1 for group in groups if not group.are_parts)
    unshared = sum(lifetime.aligned_bytes for lifetime in lifetimes)
    record.notes += [
        f"{len(plan.names)} activations in {len(plan.buffers)} buffers, {in_place} written in place",
        f"peak {placement.peak:,} bytes, lower bound {placement.lower_bound:,}, without sharing {unshared:,}",
        f"at most {', '.join(f'{n} {symbol}' for symbol, n in maxima.items())} rows",
    ]
    return plan, record


def _columns(value: Value) -> int:
    return int(value.type.dims[1]) if len(value.type.dims) > 1 else 1


def _best_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """Offset of the smallest gap of at least size between taken ranges, or the end of them."""
    best, best_size, end = -1, 0, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (best < 0 or gap < best_size):
            best, best_size = end, gap
        end = max(end, stop)
    return best if best >= 0 else end


@dataclass(eq=False, slots=True)
class _Group:
    """Values that share a buffer because each is written over the one before; or are parts of the same rows."""

    values: list[Value]
    first: int
    last: int
    are_parts: bool = False


def _alias_groups(graph: Graph) -> list[_Group]:
    last_read = {value: i for i, node in enumerate(graph.nodes) for value in node.inputs.values()}
    end = len(graph.nodes)
    last_read.update(dict.fromkeys(graph.outputs.values(), end))
    groups: dict[Value, _Group] = {}
    for i, node in enumerate(graph.nodes):
        if node.family == "linear_parts":
            last = max(last_read.get(value, i) for value in node.outputs)
            groups |= dict.fromkeys(node.outputs, _Group(list(node.outputs), i, last, True))
            continue
        for value in node.outputs:
            if value.type.dtype == "kv":
                continue
            last = last_read.get(value, i)
            group = (
                groups.get(node.inputs["residual"])
                if value is node.outputs[0] and _may_overwrite(node, i, last_read)
                else None
            )
            if group is None or group.are_parts:
                groups[value] = _Group([value], i, last)
            else:
                group.values.append(value)
                group.last = last
                groups[value] = group
    return list(dict.fromkeys(groups.values()))


def _may_overwrite(node: Node, idx: int, last_read: Mapping[Value, int]) -> bool:
    """Whether out may be the residual's buffer: nothing reads the residual later, or across rows now."""
    residual = node.inputs.get("residual")
    return residual is not None and last_read[residual] == idx and residual is not node.inputs["x"]


def _lifetime(graph: Graph, group: _Group, maxima: Mapping[str, int]) -> Lifetime:
    type_ = group.values[0].type
    cols = math.prod(int(dim) for dim in type_.dims[1:])
    if group.are_parts:
        cols = sum(int(value.type.dims[1]) for value in group.values)
    size = maxima[symbol_rows(group.values[0])] * row_stride(type_.dtype, cols) * itemsize(type_.dtype)
    return Lifetime(size, group.first, group.last)


def _stem(graph: Graph, value: Value, names: Mapping[Value, str]) -> str:
    """What a value is called: its name as an output, or the letter of its family, with the symbol of its rows when that
    is not T. Gathered rows are called after what they were gathered from."""
    for name, output in graph.outputs.items():
        if output is value:
            return name
    producer = value.producer
    if producer is not None and producer.family == "gather":
        return f"{names[producer.inputs['x']]}_{value.type.dims[0]}"
    stem = _NAMES.get((producer.family if producer is not None else None) or "", "v")
    return stem if value.type.dims[0] == "T" else f"{stem}_{value.type.dims[0]}"


def _fresh_name(stem: str, taken: Mapping[str, Buffer]) -> str:
    name, count = stem, 2
    while name in taken:
        name, count = f"{stem}{count}", count + 1
    return name
