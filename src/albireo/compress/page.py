"""A quantization as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Called by report.py. Looks as the page of albireo verify does, light or dark as the reader's system is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape

from albireo.compress.picture import drift_line, sensitivity_map
from albireo.compress.result import Outcome, TextQuality
from albireo.verify.page_style import STYLE

_STYLE = """
.map rect.cell { stroke:var(--paper); stroke-width:2; } .map text.value { font-size:11px; fill:var(--ink); }
.map text.dark { fill:#fff; } .map text.kind { font-size:10px; fill:var(--soft); } .map text.kind.dark { fill:#e8edf5; }
figure { overflow-x:auto; }
"""


def page(outcome: Outcome) -> str:
    """The page as text."""
    recipe = outcome.recipe
    title = f"{recipe['scheme']} by {recipe['method']}"
    saved = 1 - outcome.bytes_after / outcome.bytes_before
    lead = (
        f"{outcome.model['architecture']}: {outcome.bits_per_weight:.2f} bits a weight over all linears, "
        f"{_size(outcome.bytes_before)} to {_size(outcome.bytes_after)} ({saved:.0%} saved)."
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)} · albireo quantize</title><style>{STYLE}{_STYLE}</style></head><body><main>",
        f'<header><p class="over">albireo quantize</p><h1>{escape(title)}</h1>',
        f'<p class="lead">{escape(lead)}</p></header>',
        *_sizes(outcome),
        *_speed(outcome),
        *(part for found in outcome.qualities for part in _quality(found)),
        "<section><h2>Where it costs</h2>",
        '<p class="proves">Each linear alone: how far its outputs are from the original’s on calibration inputs, as a '
        "part of their norm; inputs rounded as at run time.</p>",
        f"<figure>{sensitivity_map(outcome.linears)}</figure>",
        "</section><section><h2>What adds up</h2>",
        '<p class="proves">Distance of what each layer’s first linears read from what they read in the original, as a '
        "part of its norm, on the texts above.</p>",
        f"<figure>{drift_line(outcome.drift)}</figure></section>",
        *_notes(outcome),
        '<section><h2>What and how</h2><table class="facts">',
        *(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in {**outcome.model, **recipe}.items()),
        "</table></section></main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _sizes(outcome: Outcome) -> Iterator[str]:
    counts = Counter(linear.encoding for linear in outcome.linears)
    yield '<section><h2>Bytes</h2><table class="numbers"><thead><tr><th>linears</th><th>how many</th><th>weights</th>'
    yield "<th>bytes</th><th>bits a weight</th></tr></thead><tbody>"
    for name, count in counts.most_common():
        chosen = [linear for linear in outcome.linears if linear.encoding == name]
        weights = sum(linear.shape[0] * linear.shape[1] for linear in chosen)
        size = sum(linear.num_bytes for linear in chosen)
        yield (
            f"<tr><th>{escape(name)}</th><td>{count}</td><td>{weights:,}</td><td>{size:,}</td>"
            f"<td>{8 * size / max(1, weights):.2f}</td></tr>"
        )
    yield "</tbody></table>"
    if outcome.is_untied:
        yield '<p class="note">The head was the embedding table; it is a matrix of its own now. The table stays.</p>'
    yield "</section>"


def _speed(outcome: Outcome) -> Iterator[str]:
    """What was measured, the original beside it; a line where nothing was, and why."""
    speeds = outcome.speeds
    if speeds is None:
        if outcome.speed_note:
            yield f'<section><h2>Speed</h2><p class="note">Not measured: {escape(outcome.speed_note)}</p></section>'
        return
    before, after = speeds.original, speeds.quantized
    yield "<section><h2>Speed</h2>"
    yield from _tiles(
        [
            (
                "decode",
                f"{after.decode_tokens_per_s:,.1f} tok/s",
                f"original {before.decode_tokens_per_s:,.1f}, {speeds.decode_ratio:.2f} times that",
            ),
            (
                "prefill",
                f"{after.prefill_tokens_per_s:,.0f} tok/s",
                f"original {before.prefill_tokens_per_s:,.0f}, {speeds.prefill_ratio:.2f} times that",
            ),
            ("weights in memory", _size(after.weight_bytes), f"original {_size(before.weight_bytes)}"),
        ]
    )
    yield (
        f'<p class="note">Each measured alone with one request of {speeds.num_prompt_tokens} prompt and '
        f"{speeds.num_output_tokens} output tokens on {speeds.num_threads} threads; the best of a few runs where they "
        "are short.</p></section>"
    )


def _tiles(tiles: list[tuple[str, str, str]]) -> Iterator[str]:
    """Name, value and note of each."""
    yield '<div class="tiles">'
    for name, value, note in tiles:
        yield f"<div><p>{escape(name)}</p><strong>{escape(value)}</strong><p>{escape(note)}</p></div>"
    yield "</div>"


def _quality(found: TextQuality) -> Iterator[str]:
    quality = found.quality
    tiles = [
        (
            "perplexity",
            f"{quality.perplexity:.4g}",
            f"original {quality.oracle_perplexity:.4g}, {found.perplexity_change:+.2%}",
        ),
        ("mean KL divergence", f"{quality.mean_kl:.3g}", f"nats a token, ± {quality.mean_kl_error:.1g}"),
        ("largest KL divergence", f"{quality.max_kl:.3g}", "nats, of a single token"),
        (
            "top-1 agreement",
            f"{quality.top1_agreement:.2%}",
            f"{quality.clear_top1_agreement:.2%} of {quality.num_clear:,} places where the original is clear",
        ),
    ]
    yield f"<section><h2>Quality on {escape(found.text)}</h2>"
    yield from _tiles(tiles)
    yield f'<p class="note">{found.num_tokens:,} tokens, {quality.num_predictions:,} predictions.</p></section>'


def _notes(outcome: Outcome) -> Iterator[str]:
    noted = [linear for linear in outcome.linears if linear.note]
    if noted:
        yield '<section><h2>Notes</h2><table class="facts">'
        yield from (f"<tr><th>{escape(x.module)}</th><td>{escape(x.note)}</td></tr>" for x in noted)
        yield "</table></section>"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:,.2f} GB"
