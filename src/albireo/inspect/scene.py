"""Places of everything in the picture of a layer: ops, groups, calls, wires, and the channel of long wires.

Called by layer_picture.py, which draws what is placed here, and by tests, which hold it to its promises. Pixels, y
downwards. Does not draw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from albireo.graph.node import Graph, Node, Value
from albireo.inspect.layout import lay_out
from albireo.inspect.story import Group, Story

OP_WIDTH, OP_HEIGHT = 188.0, 54.0
CALL_WIDTH, CALL_HEIGHT = 372.0, 118.0
MARGIN, MIN_WIDTH = 28.0, 1200.0
_COLUMN_GAP, _LANE, _RANK_GAP = 14.0, 10.0, 20.0
_BAND_GAP, _PAD_TOP, _PAD = 38.0, 24.0, 14.0
_CHANNEL, _RIBBON = 22.0, 84.0
_PILL_HEIGHT = 26.0


@dataclass(frozen=True, slots=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height

    @property
    def center(self) -> float:
        return self.x + self.width / 2

    def overlaps(self, other: Rect) -> bool:
        return self.x < other.right and other.x < self.right and self.y < other.bottom and other.y < self.bottom


@dataclass(frozen=True, slots=True)
class Pill:
    """A value that comes into the layer, or leaves it."""

    value: Value
    enters: bool


#: What a wire joins.
End = Node | Pill


@dataclass(frozen=True, slots=True)
class Wire:
    """A short wire: points by turns (x, y) where it leaves a rank and where it enters the next."""

    value: Value
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LongWire:
    """A wire that passes whole groups in the channel at x.

    start: where it turns off under its source. targets: (x, y, whether it enters there from the side, else from above).
    """

    value: Value
    x: float
    start: tuple[float, float]
    targets: tuple[tuple[float, float, bool], ...]


@dataclass(slots=True)
class Scene:
    """Where everything is. bands and calls in the order of the groups."""

    width: float = MIN_WIDTH
    height: float = 0.0
    ops: dict[Node, Rect] = field(default_factory=dict)
    pills: dict[Pill, Rect] = field(default_factory=dict)
    bands: list[Rect] = field(default_factory=list)
    calls: list[Rect] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)
    long_wires: list[LongWire] = field(default_factory=list)


def place_story(story: Story, base: Graph, top: float) -> Scene:
    """Place a layer from y = top downwards: a band for each group, its ops in ranks, its call beside it."""
    band_of = {op: i for i, group in enumerate(story.groups) for op in _ops(group)}
    edges = list(_edges(base, band_of))
    count = len(story.groups)
    bands: dict[End, int] = dict(band_of.items())
    bands |= {end: -1 if end.enters else count for edge in edges for end in edge[1:] if isinstance(end, Pill)}
    short = [edge for edge in edges if bands[edge[2]] - bands[edge[1]] <= 1]
    ranks, spans = _ranks(story, base, bands)
    boxes = {end: (ranks[end], OP_WIDTH) for end in sorted(bands, key=lambda e: (ranks[e], bands[e]))}
    last = spans[-1][0] + spans[-1][1]
    sections = [range(1), *(range(first, first + depth) for first, depth in spans), range(last, last + 1)]
    layout = lay_out(boxes, [(a, b) for _, a, b in short], sections, gap=_COLUMN_GAP, lane_width=_LANE)
    far = [edge for edge in edges if bands[edge[2]] - bands[edge[1]] > 1]
    channels = _channels(far, bands)
    scene = Scene()
    low = min((c - OP_WIDTH / 2 for c in layout.centers.values()), default=0.0)
    high = max((c + OP_WIDTH / 2 for c in layout.centers.values()), default=OP_WIDTH)
    left = MARGIN + _CHANNEL * (1 + max(channels.values(), default=-1))
    inner = max(high - low, MIN_WIDTH - left - 2 * _PAD - _RIBBON - CALL_WIDTH - MARGIN)
    shift = left + _PAD - low + (inner - (high - low)) / 2
    tops = _place_bands(scene, story, spans, left, inner, top)
    for end in boxes:
        y = tops[ranks[end]]
        height = _PILL_HEIGHT if isinstance(end, Pill) else OP_HEIGHT
        place = Rect(layout.centers[end] + shift - OP_WIDTH / 2, y, OP_WIDTH, height)
        if isinstance(end, Pill):
            scene.pills[end] = place
        else:
            scene.ops[end] = place
    for (value, source, target), xs in zip(short, layout.wires, strict=True):
        scene.wires.append(Wire(value, _points(scene, source, target, [x + shift for x in xs], tops, ranks)))
    _place_long_wires(scene, far, channels, left)
    return scene


def _ops(group: Group) -> list[Node]:
    return [*group.members, *group.dropped]


def _edges(base: Graph, band_of: dict[Node, int]) -> Iterator[tuple[Value, End, End]]:
    """(value, from, to) of every activation that an op of the layer reads or hands on; and of its own KV write."""
    pills: dict[Value, Pill] = {}
    users = base.users()
    for node in band_of:
        for value in dict.fromkeys(node.inputs.values()):
            if value.is_constant or value in base.inputs.values():
                continue
            if value.producer in band_of:
                yield value, value.producer, node
            elif value.type.dtype != "kv":
                yield value, pills.setdefault(value, Pill(value, True)), node
    for node in band_of:
        for value in node.outputs:
            leaves = base.is_output(value) or any(user not in band_of for user in users.get(value, ()))
            if leaves and value.type.dtype != "kv":
                yield value, node, Pill(value, False)


def _ranks(story: Story, base: Graph, bands: dict[End, int]) -> tuple[dict[End, int], list[tuple[int, int]]]:
    """Rank of everything, and of each band its first rank and how many it has."""
    order = {node: i for i, node in enumerate(base.nodes)}
    ranks: dict[End, int] = {end: 0 for end, band in bands.items() if band < 0}
    first, spans = 1, []
    for group in story.groups:
        depth = 0
        for node in sorted(_ops(group), key=order.__getitem__):
            inside = [ranks[v.producer] + 1 for v in node.inputs.values() if _in(v.producer, group) and v.producer]
            ranks[node] = max([first, *inside])
            depth = max(depth, ranks[node] - first + 1)
        spans.append((first, max(depth, 1)))
        first += max(depth, 1)
    ranks.update({end: first for end, band in bands.items() if band == len(story.groups)})
    return ranks, spans


def _in(node: Node | None, group: Group) -> bool:
    return node is not None and (node in group.members or node in group.dropped)


def _channels(far: Sequence[tuple[Value, End, End]], bands: dict[End, int]) -> dict[Value, int]:
    """Which channel each long wire takes; two that are side by side take different ones."""
    spans: dict[Value, tuple[float, float]] = {}
    for value, source, target in far:
        stop = spans.get(value, (0.0, 0.0))[1]
        spans[value] = (bands[source] + 0.5, max(stop, bands[target]))
    channels: dict[Value, int] = {}
    for value, (start, stop) in spans.items():
        taken = {channels[v] for v in channels if spans[v][0] < stop and start < spans[v][1]}
        channels[value] = next(i for i in range(len(taken) + 1) if i not in taken)
    return channels


def _place_bands(
    scene: Scene, story: Story, spans: Sequence[tuple[int, int]], left: float, inner: float, top: float
) -> dict[int, float]:
    """Fill bands, calls and the size of the scene. Returns: rank -> y."""
    tops = {0: top}
    y = top + _PILL_HEIGHT + _BAND_GAP
    width = inner + 2 * _PAD
    scene.width = left + width + _RIBBON + CALL_WIDTH + MARGIN
    for _, (first, depth) in zip(story.groups, spans, strict=True):
        ops = depth * OP_HEIGHT + (depth - 1) * _RANK_GAP
        height = max(_PAD_TOP + ops + _PAD, CALL_HEIGHT)
        band = Rect(left, y, width, height)
        scene.bands.append(band)
        scene.calls.append(Rect(band.right + _RIBBON, band.y + (height - CALL_HEIGHT) / 2, CALL_WIDTH, CALL_HEIGHT))
        start = y + (height + _PAD_TOP - _PAD - ops) / 2
        for i in range(depth):
            tops[first + i] = start + i * (OP_HEIGHT + _RANK_GAP)
        y += height + _BAND_GAP
    last = spans[-1][0] + spans[-1][1]
    tops[last] = y - _BAND_GAP + _RANK_GAP
    scene.height = tops[last] + _PILL_HEIGHT
    return tops


def _points(
    scene: Scene, source: End, target: End, xs: Sequence[float], tops: dict[int, float], ranks: dict[End, int]
) -> tuple[tuple[float, float], ...]:
    start, end = _rect(scene, source), _rect(scene, target)
    points = [(start.center, start.bottom)]
    for i, x in enumerate(xs[1:-1], start=1):
        y = tops[ranks[source] + i]
        points += [(x, y), (x, y + OP_HEIGHT)]
    return (*points, (end.center, end.y))


def _place_long_wires(
    scene: Scene, far: Sequence[tuple[Value, End, End]], channels: dict[Value, int], left: float
) -> None:
    targets: dict[Value, list[tuple[float, float, bool]]] = {}
    starts: dict[Value, tuple[float, float]] = {}
    for value, source, target in far:
        start, end = _rect(scene, source), _rect(scene, target)
        starts[value] = (start.center, _below(scene, start))
        others = [r for r in (*scene.ops.values(), *scene.pills.values()) if r.y < end.bottom and end.y < r.bottom]
        if all(r is end or r.x > end.x for r in others):
            targets.setdefault(value, []).append((end.x, end.y + end.height / 2, True))
        else:
            targets.setdefault(value, []).append((end.center, end.y, False))
    for value, ends in targets.items():
        x = left - _CHANNEL * (channels[value] + 0.5)
        scene.long_wires.append(LongWire(value, x, starts[value], tuple(ends)))


def _below(scene: Scene, start: Rect) -> float:
    """Where a wire may turn aside under a box: under its group, if no other box of the group is in the way."""
    for band in scene.bands:
        if start.overlaps(band):
            others = [r for r in scene.ops.values() if r.overlaps(band) and r.y >= start.bottom]
            return start.bottom if others else band.bottom
    return start.bottom


def _rect(scene: Scene, end: End) -> Rect:
    return scene.pills[end] if isinstance(end, Pill) else scene.ops[end]
