"""A verification as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Called by report.py. Light or dark as the reader's system is; fit for printing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from albireo.verify.chart import layers_chart
from albireo.verify.page_style import STYLE
from albireo.verify.result import Stage, Verification

_TITLES = {
    "graph": "Graph",
    "weights": "Weights",
    "ops": "Op by op",
    "layers": "Layer by layer",
    "tokens": "Tokens",
    "quality": "Quality",
}
_MARKS = {"passed": "✓", "failed": "✕", "not judged": "–"}
_CLASSES = {"passed": "good", "failed": "bad", "not judged": "open"}


def page(found: Verification, environment: Mapping[str, str]) -> str:
    """The page as text."""
    verdict = "Verified" if found.is_verified else "Out of tolerance"
    kind = "good" if found.is_verified else "bad"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{verdict} · albireo verify</title><style>{STYLE}</style></head><body><main>",
        f'<header><p class="over">albireo verify</p><h1 class="{kind}">{verdict}</h1>',
        f'<p class="lead">{escape(_lead(found))}</p></header>',
        *([f'<p class="finding">{escape(found.finding)}</p>'] if found.finding else []),
        '<ol class="stages">',
        *(_stage_line(stage) for stage in found.stages),
        *(_idle_line(name) for name in found.not_run),
        "</ol>",
        *(section for stage in found.stages for section in _section(stage)),
        '<section><h2>What, where and when</h2><table class="facts">',
        *(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in {**found.model, **environment}.items()),
        "</table></section></main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _lead(found: Verification) -> str:
    what = f"{found.model['architecture']}, computed in {found.model['computed in']}"
    if found.is_verified:
        return f"{what}. Every stage is within its tolerance."
    return f"{what}. The first thing that is wrong is named below; what stands on it was not run."


def _stage_line(stage: Stage) -> str:
    return (
        f'<li class="{_CLASSES[stage.verdict]}"><span class="mark">{_MARKS[stage.verdict]}</span>'
        f"<b>{_TITLES[stage.name]}</b><span>{escape(stage.summary)}</span></li>"
    )


def _idle_line(name: str) -> str:
    return f'<li class="idle"><span class="mark">·</span><b>{_TITLES[name]}</b><span>not run</span></li>'


def _section(stage: Stage) -> Iterator[str]:
    """Stages with figures to show have a section of their own; the others are said in their line."""
    body = {"ops": _ops, "layers": _layers, "quality": _quality}.get(stage.name)
    if body is not None and stage.figures:
        yield f'<section><h2>{_TITLES[stage.name]}</h2><p class="proves">{escape(stage.proves)}</p>'
        yield from body(stage.figures)
        yield "</section>"


def _ops(figures: Mapping[str, Any]) -> Iterator[str]:
    yield '<table class="numbers"><thead><tr><th>kernel</th><th>calls</th><th>values</th>'
    yield '<th colspan="2">equal to the reference</th><th>out of tolerance</th></tr></thead><tbody>'
    for row in figures["families"]:
        exact = row["num_exact"] / max(1, row["num_values"])
        wrong = f'<td class="bad">{row["num_wrong"]:,}</td>' if row["num_wrong"] else "<td>0</td>"
        yield (
            f"<tr><th>{escape(row['kernel'])}</th><td>{row['num_calls']:,}</td><td>{row['num_values']:,}</td>"
            f'<td class="bar"><i style="width:{exact:.2%}"></i></td><td>{exact:.2%}</td>{wrong}</tr>'
        )
    yield "</tbody></table>"
    yield (
        '<p class="note">Equal means to the last bit. The others are within what a float32 sum in another order may '
        "give, or one rounding away where the exact value lies next to a tie.</p>"
    )


def _layers(figures: Mapping[str, Any]) -> Iterator[str]:
    rows = figures["layers"]
    yield "<figure><figcaption>Distance of the residual stream from the reference, as a part of its norm</figcaption>"
    yield layers_chart(*([row[key] for row in rows] for key in ("name", "error", "tolerance")))
    yield "</figure>"


def _quality(figures: Mapping[str, Any]) -> Iterator[str]:
    limits = figures["limits"]
    tiles = [
        (
            "perplexity",
            _number(figures["perplexity"]),
            f"float32 {_number(figures['oracle_perplexity'])}, {figures['perplexity_change']:+.3%}; "
            f"allowed ±{limits['perplexity_change']:.2%}",
        ),
        (
            "mean KL divergence",
            _number(figures["mean_kl"]),
            f"nats a token; allowed {_number(limits['mean_kl'])}",
        ),
        ("largest KL divergence", _number(figures["max_kl"]), "nats, of a single token"),
        (
            "top-1 agreement",
            f"{figures['top1_agreement']:.2%}",
            f"{figures['clear_top1_agreement']:.2%} of {figures['num_clear']:,} places where float32 is clear; "
            f"wanted {1 - limits['clear_top1_disagreement']:.1%}",
        ),
    ]
    yield '<div class="tiles">'
    for name, value, note in tiles:
        yield f"<div><p>{escape(name)}</p><strong>{escape(value)}</strong><p>{escape(note)}</p></div>"
    yield "</div>"
    left_out = f", {figures['num_tokens_left_out']:,} more left out" if figures["num_tokens_left_out"] else ""
    yield (
        f'<p class="note">Text: {escape(figures["text"])}, {figures["num_tokens"]:,} tokens{left_out}, in windows of '
        f"{figures['window']:,}; {figures['num_predictions']:,} predictions.</p>"
    )


def _number(value: float) -> str:
    """For reading: 92.09, 196,589, 1.14 × 10⁻⁵."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    digits, power = f"{value:.2e}".split("e")
    raised = str(int(power)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{digits} × 10{raised}"
