"""Errors of linears as a map, layers across and kinds down, and the drift of layers as a line: SVG text.

Called by page.py. Colours are the page's; nothing is loaded and nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from albireo.compress.result import Linear

_WIDTH, _LEFT, _ROW = 884, 96, 34
_HEIGHT, _TOP, _BOTTOM = 190, 14, 34
#: Narrower cells have room for no number.
_NARROWEST = 42


def sensitivity_map(linears: Sequence[Linear]) -> str:
    """A cell a linear, the darker the further its outputs are from the original's; a linear that stayed is empty."""
    kinds = list(dict.fromkeys(_kind(linear) for linear in linears))
    layers = list(dict.fromkeys(linear.layer for linear in linears))
    errors = [linear.error for linear in linears if linear.error > 0]
    low, high = (math.log(min(errors)), math.log(max(errors))) if errors else (0.0, 1.0)
    cell = (_WIDTH - _LEFT) / len(layers)
    height = _ROW * len(kinds) + 28
    parts = [f'<svg class="map" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="error of each linear">']
    for row, kind in enumerate(kinds):
        y = _ROW * row + _ROW / 2 + 4
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{y:.0f}" text-anchor="end">{escape(kind)}</text>')
    for linear in linears:
        x, y = _LEFT + cell * layers.index(linear.layer), _ROW * kinds.index(_kind(linear))
        depth = (math.log(linear.error) - low) / max(high - low, 0.05) if linear.error > 0 else -1.0
        parts.append(_cell(linear, x, y, cell, depth))
    every = max(1, math.ceil(len(layers) * 30 / (_WIDTH - _LEFT)))
    has_head = all(_kind(linear) == "lm_head" for linear in linears if linear.layer == layers[-1])
    for index, layer in enumerate(layers):
        is_head = has_head and layer == layers[-1]
        if index % every == 0 or is_head:
            x, name = _LEFT + cell * (index + 0.5), "head" if is_head else str(layer)
            parts.append(f'<text class="tick" x="{x:.1f}" y="{height - 8}" text-anchor="middle">{name}</text>')
    parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{height - 8}" text-anchor="end">layer</text></svg>')
    return "".join(parts)


def drift_line(drift: Sequence[float]) -> str:
    """Over layers, the head at the end."""
    if not drift or max(drift) <= 0:
        return ""
    top = max(drift) * 1.1
    floor = _HEIGHT - _BOTTOM

    def x(i: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - 24) * i / max(1, len(drift) - 1)

    def y(value: float) -> float:
        return _TOP + (floor - _TOP) * (1 - value / top)

    line = " ".join(f"{x(i):.1f},{y(value):.1f}" for i, value in enumerate(drift))
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="drift of the layers">']
    for part in (0.0, 0.5, 1.0):
        at = y(top * part)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 24}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{top * part:.2%}</text>')
    parts.append(f'<polygon class="area" points="{x(0):.1f},{floor} {line} {x(len(drift) - 1):.1f},{floor}"/>')
    parts.append(f'<polyline class="found" points="{line}"/>')
    every = max(1, math.ceil(len(drift) * 36 / (_WIDTH - _LEFT)))
    for i, value in enumerate(drift):
        name = "head" if i == len(drift) - 1 else str(i)
        spot = f'cx="{x(i):.1f}" cy="{y(value):.1f}"'
        parts.append(f'<circle class="dot" {spot} r="3.2"><title>{name}: {value:.3%}</title></circle>')
        if i % every == 0 or i == len(drift) - 1:
            parts.append(f'<text class="tick" x="{x(i):.1f}" y="{floor + 20}" text-anchor="middle">{name}</text>')
    return "".join([*parts, "</svg>"])


def _kind(linear: Linear) -> str:
    return linear.module.rpartition(".")[2]


def _cell(linear: Linear, x: float, y: float, width: float, depth: float) -> str:
    said = f"{linear.module}: {linear.encoding}, {linear.num_bytes:,} bytes, off by {linear.error:.3%}"
    if linear.alpha is not None:
        said += f", inputs scaled with alpha {linear.alpha:g}"
    box = f'x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW}" rx="4"'
    if depth < 0:
        found = f'<rect class="cell" {box} fill="var(--line)" fill-opacity="0.45"/>'
    else:
        found = f'<rect class="cell" {box} fill="var(--blue)" fill-opacity="{0.12 + 0.83 * depth:.3f}"/>'
    tone = " dark" if depth > 0.45 else ""
    if width >= _NARROWEST:
        middle = x + width / 2
        value = f"{linear.error:.1%}" if depth >= 0 else "kept"
        found += f'<text class="value{tone}" x="{middle:.1f}" y="{y + 15}" text-anchor="middle">{value}</text>'
        if depth >= 0:
            name = escape(linear.encoding)
            found += f'<text class="kind{tone}" x="{middle:.1f}" y="{y + 28}" text-anchor="middle">{name}</text>'
    return f"<g><title>{escape(said)}</title>{found}</g>"
