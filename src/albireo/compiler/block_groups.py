"""Which layers share their KV blocks: layers with a sliding window let blocks go that others keep.

Called by pipeline.py. Decides on layouts alone; what blocks are let go when is the engine's (engine/block_tables.py).

Layers that see all positions are the first group. Those with a window are cut into groups that take a block of the
same size, so that one pool serves all of them, whatever is asked of the cache: six groups of four layers each where 4
of 26 layers see everything. What does not fill a block is lost; the size is chosen to lose little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from albireo.dtypes import KV_CODES
from albireo.graph.kv_layout import KVLayout, Window
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "what a window has passed is of no use to its layers"
#: A sequence has a block table for each, which the host writes out in every step.
MOST_GROUPS = 12
#: What a long sequence must take less by: else the tables are not worth it.
_LEAST_GAIN = 1.25


def group_blocks(graph: Graph, layout: KVLayout, max_positions: int) -> tuple[KVLayout, PassRecord]:
    """The layout with its layers in groups, where that is of use. Args: max_positions: of the longest sequence."""
    record = PassRecord("block_groups", WHY, "exact", len(graph.nodes), len(graph.nodes))
    layout, note = with_groups(layout, _windows(graph, max_positions))
    layout = replace(layout, in_chunks=_in_chunks(graph, layout))
    record.notes.append(note)
    return layout, record


def _windows(graph: Graph, max_positions: int) -> list[Window]:
    """Of each layer of the cache, positions that those who read it see; None: somebody sees as many as there are."""
    seen: dict[int, list[Window]] = {}
    for node in graph.nodes:
        if node.family == "choose_keys":
            seen.setdefault(int(node.attrs["layer"]), []).append(None)
        elif node.family == "attention":
            # what sees both ways is computed in one step, behind which nobody asks for it
            window = None if node.attrs.get("both_ways") else node.attrs["window"]
            seen.setdefault(int(node.attrs["layer"]), []).append(window if window and window < max_positions else None)
    return [None if None in seen[layer] else max(w or 0 for w in seen[layer]) for layer in sorted(seen)]


def _in_chunks(graph: Graph, layout: KVLayout) -> tuple[int, ...]:
    """Numbers of the groups with a window of which all who read them see chunks."""
    readers = [node for node in graph.nodes if node.family == "attention"]
    others = {layout.place(int(node.attrs["layer"]))[0] for node in readers if not node.attrs.get("in_chunks", False)}
    groups = range(layout.num_groups)
    return tuple(group for group in groups if layout.windows[group] is not None and group not in others)


def with_groups(layout: KVLayout, windows: Sequence[Window]) -> tuple[KVLayout, str]:
    """The layout with its layers in groups, and what was decided, in words.

    Args: windows: of each layer; None: it sees all positions, or as many as there will ever be.
    """
    kinds = sorted(set(windows), key=lambda window: (window is not None, -(window or 0)))
    if kinds in ([None], []):
        return layout, "no layer has a window that ends before the longest sequence does"
    if len(kinds) == 1:
        return replace(layout, windows=(kinds[0],)), f"all layers see {kinds[0]} positions: one group"
    members = {kind: [layer for layer, window in enumerate(windows) if window == kind] for kind in kinds}
    layers = layout.layers
    mixed = {kind for kind, some in members.items() if len({layers[layer] for layer in some}) > 1}
    if mixed - ({None} if layout.every else set()):
        return layout, "layers of one window differ in shape: one group"
    if layout.shapes and layout.dtype in KV_CODES:
        return layout, "blocks of codes are not handed from layers of one shape to others: one group"
    sizes, total = layout.sizes, sum(layout.sizes)
    # layers that differ are a group of their own, whatever it leaves of a block
    apart = [sum(sizes[layer] for layer in members[kind]) for kind in kinds if kind in mixed]
    size = _best_size(
        total, apart, [(len(members[kind]), sizes[members[kind][0]]) for kind in kinds if kind not in mixed]
    )
    if size is None or total < _LEAST_GAIN * size:
        return layout, "layers with a window are too few to gain by it, or of too many kinds: one group"
    groups, group_windows = [], []
    for kind in kinds:
        count = len(members[kind]) if kind in mixed else size // sizes[members[kind][0]]
        for start in range(0, len(members[kind]), count):
            groups.append(tuple(members[kind][start : start + count]))
            group_windows.append(kind)
    made = replace(layout, groups=tuple(groups), windows=tuple(group_windows))
    made.check()
    each, before = made.block_bytes // layout.block_size, layout.position_bytes
    lost = len(groups) * each - before
    note = f"{len(groups)} groups of {each} bytes a position, {lost} of {before} more than one group"
    return made, note


def _best_size(total: int, apart: Sequence[int], kinds: Sequence[tuple[int, int]]) -> int | None:
    """Bytes of a block that loses least, of short sequences and of long ones together.

    Args: total: bytes of all layers. apart: of those of the first group, where they differ; else none. kinds: of each
        other window how many layers it has, and the bytes of one; where none are apart the first is to be one group.
    Returns: None: every size makes too many groups.
    """
    unit, each_kind = math.lcm(*(size for _, size in kinds)), [*apart, *(math.prod(kind) for kind in kinds)]
    first, found = each_kind[0], []
    for size in range(-(-first // unit) * unit, max(each_kind) + unit, unit):
        num_groups = sum(-(-each // size) for each in each_kind)
        if num_groups <= MOST_GROUPS:
            found.append((num_groups * size / total + size / first, num_groups, size))
    return min(found)[2] if found else None
