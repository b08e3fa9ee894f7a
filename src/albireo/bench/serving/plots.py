"""Plots of a run as SVG text: values over time, distributions, and what became of each request.

Called by page.py, whose style sheet has the colours. Nothing is loaded and nothing is run. Coordinates are rounded, so
the same run gives the same page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from albireo.bench.serving.outcome import Outcome

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 58, 16, 14, 34
#: Bars of a histogram; values beyond the last percentile shown are counted in words.
_NUM_BINS, _MOST_PERCENT = 48, 99.5
#: Rows of the timeline: more requests than this are thinned out evenly.
_MOST_ROWS = 400


@dataclass(frozen=True, slots=True)
class Frame:
    """A plot's place: data in [0, x_most] by [0, y_most] on a picture of this height."""

    x_most: float
    y_most: float
    height: float

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * value / self.x_most

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * value / self.y_most

    def open(self, label: str) -> str:
        size = f'viewBox="0 0 {_WIDTH} {self.height:g}"'
        return f'<svg {size} role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>'

    def x_axis(self, unit: str) -> Iterator[str]:
        base = self.height - _BOTTOM
        yield f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base:g}" y2="{base:g}"/>'
        for value in ticks(self.x_most, 8):
            text = f"{value:g} {unit}" if value == 0 else f"{value:g}"
            place = f'x="{self.x(value):.1f}" y="{base + 18:g}"'
            yield f'<text class="tick" {place} text-anchor="middle">{text}</text>'

    def y_axis(self) -> Iterator[str]:
        for value in ticks(self.y_most, 4):
            at = self.y(value)
            if value:
                yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
            yield f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:,.10g}</text>'


def ticks(most: float, wanted: int) -> list[float]:
    """Round numbers from 0 to most, about as many as wanted."""
    step = 10 ** math.floor(math.log10(most / wanted))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= wanted)
    return [float(f"{i * step:.10g}") for i in range(math.floor(most / step + 1e-9) + 1)]


def over_time(moments_s: Sequence[float], duration_s: float, label: str) -> str:
    """How many of these moments fall into each stretch of time, as a rate a second."""
    width_s = bucket_s(duration_s)
    counts = np.bincount((np.asarray(moments_s) / width_s).astype(int), minlength=math.ceil(duration_s / width_s))
    rates = counts / width_s
    points = [((i + 0.5) * width_s, float(rate)) for i, rate in enumerate(rates)]
    frame = Frame(duration_s, max(1.0, float(rates.max())) * 1.05, 190)
    return _area(frame, [(min(x, duration_s), y) for x, y in points], f"{label}, in stretches of {width_s:g} s")


def running(outcomes: Sequence[Outcome], start_s: float, duration_s: float, label: str) -> str:
    """Requests sent and not yet answered, as a staircase."""
    changes = [(each.start_s - start_s, 1) for each in outcomes]
    changes += [(each.start_s + each.latency_s - start_s, -1) for each in outcomes]
    count, stairs = 0, [(0.0, 0.0)]
    for moment, change in sorted(changes):
        stairs.append((moment, float(count)))
        count += change
        stairs.append((moment, float(count)))
    frame = Frame(duration_s, max(1.0, max(y for _, y in stairs)) * 1.05, 150)
    return _area(frame, [*stairs, (duration_s, float(count))], label)


def bucket_s(duration_s: float) -> float:
    """A round stretch of time, about a hundred of which make the duration."""
    return next(
        base * 10.0**power for power in range(-3, 6) for base in (1, 2, 5) if base * 10.0**power * 120 >= duration_s
    )


def distribution(values_ms: Sequence[float], percentiles: Sequence[float], label: str) -> str:
    """A histogram in milliseconds, with lines at the median and the percentiles; empty text without values."""
    if not len(values_ms):
        return ""
    values = np.asarray(values_ms)
    most = float(np.percentile(values, _MOST_PERCENT)) or 1.0
    counts, edges = np.histogram(values, _NUM_BINS, (0.0, most))
    frame = Frame(most, float(max(1, counts.max())) * 1.12, 180)
    beyond = int((values > most).sum())
    said = f"{label}: {len(values):,} values" + (f", {beyond:,} of them beyond the right edge" if beyond else "")
    parts = [frame.open(said), *frame.y_axis()]
    for count, low, high in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            left, right, top = frame.x(low), frame.x(high), frame.y(count)
            size = f'width="{max(0.6, right - left - 1):.1f}" height="{frame.y(0) - top:.1f}"'
            parts.append(
                f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" {size}>'
                f"<title>{low:.3g} to {high:.3g} ms: {count:,}</title></rect>"
            )
    for percentile in sorted({50.0, *percentiles}):
        value = float(np.percentile(values, percentile))
        if value <= most:
            x = frame.x(value)
            anchor = "end" if x > _WIDTH - 140 else "start"
            shift = -5 if anchor == "end" else 5
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{frame.y(0):.1f}"/>')
            parts.append(
                f'<text class="name" x="{x + shift:.1f}" y="{_TOP + (10 if percentile == 50 else 24)}" '
                f'text-anchor="{anchor}">P{percentile:g} {value:.4g}</text>'
            )
    return "".join([*parts, *frame.x_axis("ms"), "</svg>"])


def timeline(outcomes: Sequence[Outcome], start_s: float, duration_s: float) -> str:
    """A row a request, in the order of arrival: waiting in the client, to the first token, tokens, or its failure."""
    order = sorted(range(len(outcomes)), key=lambda i: outcomes[i].start_s - outcomes[i].queue_s)
    shown = order[:: -(-len(order) // _MOST_ROWS)]
    row = max(1.6, min(12.0, 600 / len(shown)))
    frame = Frame(duration_s, 1.0, _TOP + _BOTTOM + row * len(shown))
    parts = [frame.open(f"Timeline of {len(shown):,} of {len(order):,} requests")]
    for place, i in enumerate(shown):
        each = outcomes[i]
        begin, y = each.start_s - start_s, _TOP + place * row
        bars = [("queue", begin - each.queue_s, each.queue_s, "waits in the client")]
        if not each.succeeded:
            bars += [("failed", begin, max(each.latency_s, duration_s / 200), each.error)]
        else:
            bars += [
                ("prefill", begin, each.ttft_s, "to the first token"),
                ("decode", begin + each.ttft_s, each.latency_s - each.ttft_s, "tokens"),
            ]
        for kind, left_s, length_s, what in bars:
            if length_s > 0:
                left, right = frame.x(max(0.0, left_s)), frame.x(min(duration_s, left_s + length_s))
                parts.append(
                    f'<rect class="{kind}" x="{left:.1f}" y="{y:.1f}" width="{max(0.5, right - left):.1f}" '
                    f'height="{row * 0.8:.1f}"><title>request {i}: {escape(what)}, {length_s * 1e3:,.1f} ms from '
                    f"{left_s:.3f} s</title></rect>"
                )
    return "".join([*parts, *frame.x_axis("s"), "</svg>"])


def _area(frame: Frame, points: Sequence[tuple[float, float]], label: str) -> str:
    line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in points)
    base = frame.y(0)
    edge = f"{frame.x(points[0][0]):.1f},{base:.1f} {line} {frame.x(points[-1][0]):.1f},{base:.1f}"
    return "".join(
        [
            frame.open(label),
            *frame.y_axis(),
            f'<polygon class="area" points="{edge}"/><polyline class="line" points="{line}"/>',
            *frame.x_axis("s"),
            "</svg>",
        ]
    )
