"""The picture of the arena: bytes from left to right, calls from top to bottom, a box for each life of a buffer.

Called by page.py. Two boxes never meet: that is what the plan of the arena promises.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from albireo.graph.program import Program
from albireo.inspect import svg
from albireo.inspect.arena import Arena, Life, arena_map
from albireo.inspect.scene import MARGIN, Rect

WIDTH = 1144.0
_LEFT, _TOP = 150.0, 64.0
#: The height of a call, where there are few; the whole picture is at most so high.
_CALL_HEIGHT, _MOST_HEIGHT = 17.0, 1400.0


def arena_picture(program: Program, *, style: bool = True) -> str:
    """An SVG file. style: see svg.document()."""
    arena = arena_map(program)
    height = min(_CALL_HEIGHT, _MOST_HEIGHT / (arena.num_calls + 1))
    bottom = _TOP + height * (arena.num_calls + 1)
    parts = [
        *_axis(arena, bottom),
        *_calls(program, height),
        *(part for life, place in life_rects(arena, height) for part in _life(life, place)),
        *_legend(arena, bottom),
    ]
    return svg.document(WIDTH, bottom + 64, "Memory map of the arena", parts, style=style)


def life_rects(arena: Arena, height: float) -> Iterator[tuple[Life, Rect]]:
    """Where each life is drawn; height: of a call, in pixels."""
    scale = _scale(arena)
    for life in arena.lives:
        top = _TOP + height * life.first
        yield (
            life,
            Rect(_LEFT + life.offset * scale, top, life.num_bytes * scale, height * (life.last + 1 - life.first)),
        )


def _scale(arena: Arena) -> float:
    """Pixels a byte."""
    return (WIDTH - MARGIN - _LEFT) / max(arena.peak, 1)


def _axis(arena: Arena, bottom: float) -> Iterator[str]:
    yield svg.text(_LEFT, 20, "bytes of the arena", "bold")
    for part in range(5):
        count = arena.peak * part / 4
        x = _LEFT + count * _scale(arena)
        yield svg.line(x, _TOP - 8, x, bottom, "grid")
        anchor = "start" if part == 0 else "end" if part == 4 else "middle"
        yield svg.text(x, _TOP - 26, svg.num_bytes(count), "soft", anchor=anchor)
    x = _LEFT + arena.lower_bound * _scale(arena)
    yield svg.line(x, _TOP - 16, x, bottom, "barrier")


def _calls(program: Program, height: float) -> Iterator[str]:
    every = math.ceil(13 / height)
    for i, call in enumerate(program.calls):
        if i % every == 0:
            words = svg.fit(f"{i} {call.family}", _LEFT - 24)
            yield svg.text(_LEFT - 12, _TOP + height * i + min(height, 14) - 3, words, "mono soft", anchor="end")


def _life(life: Life, place: Rect) -> Iterator[str]:
    hue = _hue(life.family)
    style = f'style="fill:{hue};fill-opacity:.55;stroke:{hue}"'
    words = f"{life.name}: {life.num_bytes:,} B at {life.offset:,}, calls {life.first} to {life.last}"
    yield f'<g class="life" data-life="{svg.escape(life.name)}"><title>{svg.escape(words)}</title>'
    yield svg.rect(place.x, place.y, place.width, place.height, "held", radius=0, more=style)
    if place.width > 12 and place.height > 11:
        label = svg.fit(life.name, place.width - 6)
        if len(label) == len(life.name):
            yield svg.text(place.x + 4, place.y + 11, label, "mono")
    yield "</g>"


def _legend(arena: Arena, bottom: float) -> Iterator[str]:
    x = _LEFT
    for family in dict.fromkeys(life.family for life in arena.lives):
        yield svg.rect(x, bottom + 16, 12, 12, "swatch", radius=3, more=f'style="fill:{_hue(family)};fill-opacity:.55"')
        yield svg.text(x + 18, bottom + 26, f"by {family}", "soft")
        x += 34 + 7 * (len(family) + 3)
    bound, peak = svg.num_bytes(arena.lower_bound), svg.num_bytes(arena.peak)
    yield svg.path(f"M{svg.number(_LEFT)} {svg.number(bottom + 48)}h28", "barrier")
    yield svg.text(_LEFT + 36, bottom + 52, f"the most that lives during one call: {bound}; the arena: {peak}", "soft")


_FAMILIES = ("embed", "norm", "qkv_rope_kv", "attention", "linear", "gather", "head_top")


def _hue(family: str) -> str:
    return svg.HUES[_FAMILIES.index(family) % len(svg.HUES)] if family in _FAMILIES else svg.HUES[-1]
