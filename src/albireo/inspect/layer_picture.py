"""The picture of one layer before and after compilation, which explains fusion to who has never seen it.

Called by cli/inspect and by page.py. Left the ops as the model wrote them, right the calls that run, each in the
colour of the box around the ops it replaced.
"""

from __future__ import annotations

from collections.abc import Iterator

from albireo.graph.node import Node, Value
from albireo.graph.private_norms import FEW_ROWS, private_norms
from albireo.graph.program import Program
from albireo.graph.program_spec import FAMILIES
from albireo.inspect import svg
from albireo.inspect.scene import MARGIN, MIN_WIDTH, LongWire, Rect, Scene, Wire, place_story
from albireo.inspect.story import Explained, Group, Story, constant_bytes, op_bytes

_LESSON = (
    "On the left, the layer as the model writes it: each small box is one operation. Run like that, each of them reads "
    "its input from memory, computes a little, and writes the result back for the next to read.",
    "On the right, what really runs. The operations inside a coloured box became the one call of that colour: they are "
    "fused. A value that only they need stays in the registers and caches of a core, and never travels to memory.",
)
_SAME = (
    "Nothing is left out: every operation on the left is carried out on the right with the same roundings, so fusion "
    "changes no bit of the result."
)
_NOT_SAME = "Every operation on the left is carried out on the right; some in another order, so last bits may differ."


def layer_picture(explained: Explained, story: Story, model: str, *, style: bool = True) -> str:
    """An SVG file. model: its name, for the title. style: see svg.document()."""
    lines = _lesson(explained)
    head_bottom = 74 + 20.0 * len(lines)
    scene = place_story(story, explained.base, top=head_bottom + 112)
    title = f"One layer of a {model} model, before and after fusion"
    parts = [
        svg.text(MARGIN, 46, svg.fit(title, scene.width - 2 * MARGIN, 25, mono=False), "bold", more=_size(25)),
        *(svg.text(MARGIN, 74 + 20 * i, words, more=_size(14)) for i, words in enumerate(lines)),
        *_cards(explained.program, story, scene.width, head_bottom),
        svg.text(scene.bands[0].x, head_bottom + 98, "What the model says", "bold", more=_size(16)),
        svg.text(scene.calls[0].x, head_bottom + 98, "What runs", "bold", more=_size(16)),
        *_ribbons(scene),
        *_bands(scene),
        *(_long_wire(wire) for wire in scene.long_wires),
        *(_wire(wire) for wire in scene.wires),
        *_pills(scene),
        *(part for node, place in scene.ops.items() for part in _op(explained, story, node, place)),
        *_chips(scene, story),
        *_calls(explained, scene, story),
        *_legend(scene),
    ]
    return svg.document(scene.width, scene.height + 78, title, parts, style=style)


def _hue(idx: int) -> str:
    return svg.HUES[idx % len(svg.HUES)]


def _size(pixels: float) -> str:
    return f'style="font-size:{pixels}px"'


def _lesson(explained: Explained) -> list[str]:
    exact = all(record.numerics == "exact" or not record.fired for record in explained.program.report)
    sentences = (*_LESSON, _SAME if exact else _NOT_SAME)
    return [words for sentence in sentences for words in svg.wrap(sentence, MIN_WIDTH - 2 * MARGIN, 14)]


def _cards(program: Program, story: Story, width: float, y: float) -> Iterator[str]:
    barriers = sum(group.call.barrier and not _is_private(program, group) for group in story.groups)
    more = sum(group.call.barrier for group in story.groups) - barriers
    moved = f"{svg.num_bytes(story.before_bytes)} → {svg.num_bytes(story.after_bytes)}"
    cards = (
        (f"{story.num_ops} → {len(story.groups)}", f"operations of layer {story.layer}, and calls"),
        (moved, "activations through memory, a token"),
        (svg.num_bytes(story.weight_bytes), "weights, read once a step in either case"),
        (
            str(barriers),
            f"barriers, {more} more beyond {FEW_ROWS} rows" if more else "barriers, where all threads meet",
        ),
    )
    each = (width - 2 * MARGIN - 3 * 14) / 4
    for i, (value, words) in enumerate(cards):
        x = MARGIN + i * (each + 14)
        yield svg.rect(x, y, each, 60, "box", radius=8)
        yield svg.text(x + 14, y + 27, value, "bold", more=_size(19))
        yield svg.text(x + 14, y + 47, svg.fit(words, each - 24, 11, mono=False), "soft", more=_size(11))


def _ribbons(scene: Scene) -> Iterator[str]:
    """From a group's box to its call: many become one."""
    for i, (band, call) in enumerate(zip(scene.bands, scene.calls, strict=True)):
        mid = svg.number((band.right + call.x) / 2)
        left, right = svg.number(band.right), svg.number(call.x)
        top, bottom, call_top, call_bottom = map(svg.number, (band.y + 6, band.bottom - 6, call.y + 8, call.bottom - 8))
        data = (
            f"M{left} {top}C{mid} {top} {mid} {call_top} {right} {call_top}V{call_bottom}"
            f"C{mid} {call_bottom} {mid} {bottom} {left} {bottom}Z"
        )
        yield svg.path(data, "ribbon", f'style="fill:{_hue(i)};fill-opacity:.2"')


def _bands(scene: Scene) -> Iterator[str]:
    for i, band in enumerate(scene.bands):
        style = f'style="fill:{_hue(i)};fill-opacity:.13;stroke:{_hue(i)};stroke-width:1.6"'
        yield svg.rect(band.x, band.y, band.width, band.height, "group", radius=10, more=style)


def _chips(scene: Scene, story: Story) -> Iterator[str]:
    """On the edge of each group, over the wires that pass there: what became of it."""
    for i, (group, band) in enumerate(zip(story.groups, scene.bands, strict=True)):
        count = len(group.members)
        words = f"{count} operation{'s' * (count != 1)} → 1 call" if count else "a call that a pass added"
        style = f'style="fill:{_hue(i)}"'
        yield svg.rect(band.x + 14, band.y - 10, 6.6 * len(words) + 22, 20, "chip", radius=10, more=style)
        yield svg.text(band.x + 25, band.y + 4, words, "bold", more='style="fill:#fff;font-size:11.5px"')


def _wire(wire: Wire) -> str:
    (x, y), *rest = wire.points
    data = f"M{svg.number(x)} {svg.number(y)}"
    for i, (to_x, to_y) in enumerate(rest):
        if i % 2:  # past the boxes of a rank, straight down
            data += f"V{svg.number(to_y)}"
        else:
            data += _curve(x, y, to_x, to_y)
        x, y = to_x, to_y
    return svg.path(data, "wire") + svg.tip_down(x, y)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    if abs(x - to_x) < 0.1:
        return f"V{svg.number(to_y)}"
    mid = svg.number((y + to_y) / 2)
    return f"C{svg.number(x)} {mid} {svg.number(to_x)} {mid} {svg.number(to_x)} {svg.number(to_y)}"


def _long_wire(wire: LongWire) -> str:
    """Out from under its source, into the channel, and off it at each target; corners are round."""
    (x, y), lane = wire.start, svg.number(wire.x)
    last = max(to_y for _, to_y, _ in wire.targets)
    data = f"M{svg.number(x)} {svg.number(y)}v3q0 10 -10 10H{svg.number(wire.x + 10)}q-10 0 -10 10"
    data += f"V{svg.number(last - 10)}"
    tips = ""
    for to_x, to_y, from_side in wire.targets:
        if from_side:
            data += f"M{lane} {svg.number(to_y - 10)}q0 10 10 10H{svg.number(to_x - 4)}"
            tips += svg.tip_right(to_x, to_y)
        else:
            data += f"M{lane} {svg.number(to_y - 20)}q0 8 10 8H{svg.number(to_x - 10)}q10 0 10 12"
            tips += svg.tip_down(to_x, to_y)
    middle = (y + last) / 2
    turn = f'transform="rotate(-90 {svg.number(wire.x - 6)} {svg.number(middle)})"'
    words = svg.fit(f"{wire.value} {wire.value.type} waits here for its next reader", last - y - 40)
    label = svg.text(wire.x - 6, middle, words, "mono soft", anchor="middle", more=turn)
    return svg.path(data, "wire", 'style="stroke-width:2.2"') + tips + label


def _pills(scene: Scene) -> Iterator[str]:
    for pill, place in scene.pills.items():
        yield svg.rect(place.x, place.y, place.width, place.height, "box", radius=13)
        yield svg.text(place.center, place.y + 17, _typed(pill.value, place.width - 16), "mono", anchor="middle")
        words = "from what came before" if pill.enters else "to what comes next"
        yield svg.text(place.right + 12, place.y + 17, words, "soft", more=_size(11))


def _typed(value: Value, width: float) -> str:
    if value.type.dtype == "kv":
        return f"{svg.fit(str(value), 60)} KV cache"
    return svg.fit(f"{value} {value.type}", width)


def _op(explained: Explained, story: Story, node: Node, place: Rect) -> Iterator[str]:
    is_dropped = any(node in group.dropped for group in story.groups)
    name = str(node.attrs["kind"]) if node.op == "unary" else node.op
    label = svg.escape(f"{node.origin}: {node}")
    names = " ".join(v.name for v in node.outputs)
    yield f'<g class="node" data-op="{svg.escape(names)}"><title>{label}</title>'
    yield svg.rect(place.x, place.y, place.width, place.height, "gone" if is_dropped else "box op")
    yield svg.text(place.x + 10, place.y + 17, name, "bold")
    origin = svg.fit(_short_origin(node.origin), place.width - 30 - len(name) * 8, mono=False)
    yield svg.text(place.right - 10, place.y + 17, origin, "soft", anchor="end", more=_size(10.5))
    inner = place.width - 20
    yield svg.text(place.x + 10, place.y + 32, _typed(node.outputs[0], inner), "mono")
    weights = constant_bytes(node)
    moved = svg.num_bytes(op_bytes(node, explained.program))
    words = f"{moved} + {svg.num_bytes(weights)} weights" if weights else moved
    words = "changes nothing: dropped" if is_dropped else words
    yield svg.text(place.x + 10, place.y + 46, svg.fit(words, inner), "mono soft")
    yield "</g>"


def _short_origin(origin: str) -> str:
    """layers.3.attn.q -> attn.q"""
    parts = origin.split(".")
    return ".".join(parts[2:]) if parts[:1] == ["layers"] else origin


def _calls(explained: Explained, scene: Scene, story: Story) -> Iterator[str]:
    longest = max((max(group.before_bytes, group.after_bytes) for group in story.groups), default=1) or 1
    for i, (group, place) in enumerate(zip(story.groups, scene.calls, strict=True)):
        call, hue, x = group.call, _hue(i), place.x + 12
        yield f'<g class="node" data-call="{group.idx}"><title>{svg.escape(f"call {group.idx}: {call.origin}")}</title>'
        outline = f'style="stroke:{hue};stroke-width:1.6"'
        yield svg.rect(place.x, place.y, place.width, place.height, "box call", radius=10, more=outline)
        yield svg.rect(x, place.y + 13, 11, 11, "swatch", radius=3, more=f'style="fill:{hue}"')
        yield svg.text(x + 19, place.y + 23, call.family, "bold", more=_size(14))
        yield svg.text(place.right - 12, place.y + 23, f"call {group.idx}", "soft", anchor="end")
        yield svg.text(x, place.y + 42, svg.fit(call.kernel, place.width - 130), "mono")
        if group.saved_bytes > 0:
            saved = f"saves {svg.num_bytes(group.saved_bytes)}"
            yield svg.text(place.right - 12, place.y + 42, saved, "bold", anchor="end", more=f'style="fill:{hue}"')
        yield svg.text(x, place.y + 58, svg.fit(_reads(explained.program, group), place.width - 24), "mono soft")
        yield from _bars(group, place, longest, hue)
        yield "</g>"
        if i + 1 < len(scene.calls):
            yield from _between(explained.program, group, place, scene.calls[i + 1])


def _reads(program: Program, group: Group) -> str:
    """What a call reads and writes, and what of it the threads share out: h, x → x · 128 KiB weights, by panels"""
    call, outputs = group.call, FAMILIES[group.call.family].outputs
    read = [name for role, name in call.args.items() if role not in outputs and name not in program.constants]
    write = [call.args[role] for role in outputs if role in call.args]
    (write if call.family == "qkv_rope_kv" else read if call.family == "attention" else []).append("KV cache")
    weights = f"{svg.num_bytes(group.weight_bytes)} weights, " if group.weight_bytes else ""
    return f"{', '.join(read)} → {', '.join(write)} · {weights}by {call.split}"


def _bars(group: Group, place: Rect, longest: int, hue: str) -> Iterator[str]:
    room, x = place.width - 152, place.x + 72
    rows = (
        ("op by op", group.before_bytes, "before", ""),
        ("this call", group.after_bytes, "after", f'style="fill:{hue}"'),
    )
    for i, (words, count, kind, more) in enumerate(rows):
        y = place.y + 71 + 19 * i
        yield svg.text(place.x + 12, y + 10, words, "soft", more=_size(11))
        width = max(2.0, room * count / longest)
        yield svg.rect(x, y, width, 12, kind, radius=3, more=more)
        yield svg.text(x + width + 8, y + 10, svg.num_bytes(count), more=_size(11))


def _between(program: Program, group: Group, place: Rect, following: Rect) -> Iterator[str]:
    """The step from one call to the next: what was written, and a line where all threads meet."""
    x, middle = place.x + 46, (place.bottom + following.y) / 2
    yield svg.line(x, place.bottom, x, following.y - 6, "wire") + svg.tip_down(x, following.y)
    args = group.call.args
    written = (program.buffers[args[role]] for role in FAMILIES[group.call.family].outputs if role in args)
    words = ", ".join(f"{b.name} {b.dtype}[{b.rows}, {b.cols}]" for b in written)
    yield svg.text(x + 10, middle - 7, svg.fit(words, place.width - 130), "mono soft")
    if group.call.barrier:
        yield svg.line(place.x, middle, place.right, middle, "barrier")
        words = f"barrier beyond {FEW_ROWS} rows" if _is_private(program, group) else "barrier"
        yield svg.text(place.right, middle - 5, words, "warn", anchor="end", more=_size(10.5))


def _is_private(program: Program, group: Group) -> bool:
    """Whether threads compute few rows of it each for themselves, and need no barrier behind it then."""
    private = private_norms(program.calls, program.buffers, program.maxima)
    return any(group.call is program.calls[i] for i in private)


def _legend(scene: Scene) -> Iterator[str]:
    y = scene.height + 38
    x = MARGIN
    yield svg.rect(x, y - 12, 26, 16, "box", radius=4)
    yield svg.text(x + 34, y, "an operation: its result, and the bytes it moves for a token", "soft")
    x += 400
    yield svg.path(f"M{svg.number(x)} {svg.number(y - 4)}h26", "wire") + svg.tip_right(x + 28, y - 4)
    yield svg.text(x + 36, y, "a value goes from one to the next", "soft")
    x += 262
    yield svg.path(f"M{svg.number(x)} {svg.number(y - 4)}h28", "barrier")
    yield svg.text(x + 36, y, "barrier: all threads meet before the next call", "soft")
    yield svg.text(
        MARGIN,
        y + 24,
        "T: tokens of a step. Bytes are activations for one token, keys and values included; what "
        "attention reads of the KV cache grows with the context and is the same on both sides.",
        "soft",
    )
