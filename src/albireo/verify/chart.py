"""Errors of layers as a picture: SVG text, on a logarithmic scale, with the tolerance above.

Called by page.py. Colours are the page's; nothing is loaded and nothing is run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

_WIDTH, _HEIGHT = 860, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 128, 18, 40
#: Labels of the horizontal axis, at most.
_MOST_LABELS = 14

Point = tuple[float, float]


def layers_chart(names: Sequence[str], errors: Sequence[float], tolerances: Sequence[float]) -> str:
    """Two lines over the layers. Places where both are zero, such as a copied embedding, have no point."""
    shown = [i for i in range(len(names)) if _is_shown(errors[i]) or _is_shown(tolerances[i])]
    positive = [v for i in shown for v in (errors[i], tolerances[i]) if _is_shown(v)]
    if not positive:
        return ""
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 1e-9)
    low, high = (low, high) if high > low else (low, low + 1)

    def x(i: int) -> float:
        return _LEFT + 12 + (_WIDTH - _LEFT - _RIGHT - 12) * ((i - shown[0]) / max(1, len(names) - 1 - shown[0]))

    def y(value: float) -> float:
        at = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - min(1.0, at))

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="error of each layer and its tolerance">']
    parts += _grid(low, high, y)
    parts += _labels(names, shown, x)
    allowed = [(x(i), y(tolerances[i])) for i in shown if _is_shown(tolerances[i])]
    found = [(x(i), y(errors[i])) for i in shown if _is_shown(errors[i])]
    parts.append(f'<polyline class="allowed" points="{_points(allowed)}"/>')
    if found:
        floor = _HEIGHT - _BOTTOM
        area = f"{found[0][0]:.1f},{floor} {_points(found)} {found[-1][0]:.1f},{floor}"
        parts.append(f'<polygon class="area" points="{area}"/><polyline class="found" points="{_points(found)}"/>')
    for i in shown:
        if _is_shown(errors[i]):
            kind = "dot" if errors[i] <= tolerances[i] else "dot wrong"
            said = f"{escape(names[i])}: off by {errors[i]:.3e}, tolerance {tolerances[i]:.3e}"
            at = f'cx="{x(i):.1f}" cy="{y(errors[i]):.1f}"'
            parts.append(f'<circle class="{kind}" {at} r="3.2"><title>{said}</title></circle>')
    for line, text, points in (("allowed", "tolerance", allowed), ("found", "this engine", found)):
        if points:
            right, height = points[-1]
            parts.append(f'<text class="name {line}-name" x="{right + 12:.1f}" y="{height + 4:.1f}">{text}</text>')
    return "".join([*parts, "</svg>"])


def _is_shown(value: float) -> bool:
    return math.isfinite(value) and value > 0


def _points(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _grid(low: int, high: int, y: Callable[[float], float]) -> list[str]:
    lines = []
    for power in range(low, high + 1):
        at = y(10.0**power)
        lines.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        lines.append(
            f'<text class="tick" x="{_LEFT - 10}" y="{at + 4:.1f}" text-anchor="end">10'
            f'<tspan dy="-5" font-size="9">{str(power).replace("-", "−")}</tspan></text>'
        )
    return lines


def _labels(names: Sequence[str], shown: Sequence[int], x: Callable[[int], float]) -> list[str]:
    """Numbers of layers under places that have a point, few enough to be read; and what the numbers are."""
    every = -(-len(shown) // _MOST_LABELS)
    wanted = [i for at, i in enumerate(shown[:-1]) if at % every == 0 and i < shown[-1] - every + 1]
    at = _HEIGHT - _BOTTOM + 22
    labels = [(x(i), names[i].removeprefix("layers.")) for i in [*wanted, shown[-1]]]
    text = [f'<text class="tick" x="{x:.1f}" y="{at}" text-anchor="middle">{escape(name)}</text>' for x, name in labels]
    return [*text, f'<text class="tick" x="{_LEFT - 10}" y="{at}" text-anchor="end">layer</text>']
