"""A measurement of a server as one HTML page that needs nothing else: no script, no font, no picture from anywhere.

Called by cli/bench/serve. Light or dark as the reader's system is; fit for printing. Texts of prompts and answers are
not on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.metrics import METRICS, Wanted, chunk_times_s, percent, statistics_ms, times_s
from albireo.bench.serving.page_style import STYLE
from albireo.bench.serving.plots import distribution, over_time, running, timeline
from albireo.bench.serving.result import NAMES, Setup, warning_lines

_KEYS = {
    "queue": "waits in the client",
    "prefill": "to the first token",
    "decode": "tokens",
    "failed": "failed",
}


def page(run: LoadRun, result: Mapping[str, Any], setup: Setup, wanted: Wanted, facts: Mapping[str, str]) -> str:
    """The page as text. Args: facts: what else to say of the machine and the load, in words."""
    title = f"{setup.model_id} · albireo bench serve"
    warnings = list(warning_lines(result))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>",
        f'<header><p class="over">albireo bench serve</p><h1>{escape(setup.model_id)}</h1>',
        f'<p class="lead">{escape(_lead(result))}</p></header>',
        *(['<ul class="warnings">', *(f"<li>{escape(each)}</li>" for each in warnings), "</ul>"] if warnings else []),
        *_tiles(result),
    ]
    if result["completed"]:
        parts += [*_over_time(run), *_distributions(run, setup, wanted)]
    parts += [*_timeline(run), *_facts(result, setup, facts), "</main></body></html>"]
    return "\n".join(parts) + "\n"


def _lead(result: Mapping[str, Any]) -> str:
    rate = "all at once" if result["request_rate"] == "inf" else f"{result['request_rate']:g} a second"
    limit = "" if result["max_concurrency"] is None else f", at most {result['max_concurrency']} at a time"
    sent = result["completed"] + result["failed"]
    return f"{sent:,} requests, {rate}{limit}; {result['failed']:,} failed; {result['duration']:.1f} s."


def _tiles(result: Mapping[str, Any]) -> Iterator[str]:
    tiles = [
        ("output", f"{result['output_throughput']:,.0f} tok/s", f"{result['total_output_tokens']:,} tokens"),
        ("in all", f"{result['total_token_throughput']:,.0f} tok/s", f"{result['total_input_tokens']:,} of prompts"),
        ("requests", f"{result['request_throughput']:,.2f} /s", f"{result['completed']:,} succeeded"),
        ("at once", f"{result['max_concurrent_requests']:,}", "requests at the peak"),
    ]
    if result["request_goodput"] is not None:
        tiles.append(("goodput", f"{result['request_goodput']:,.2f} /s", "requests within the limits"))
    yield '<div class="tiles">'
    for name, value, note in tiles:
        yield f"<div><p>{name}</p><strong>{value}</strong><p>{note}</p></div>"
    yield "</div>"


def _over_time(run: LoadRun) -> Iterator[str]:
    good = [each for each in run.outcomes if each.succeeded]
    moments = [moment - run.start_s for each in good for moment in chunk_times_s(each).tolist()]
    yield "<section><h2>Over time</h2>"
    yield from _figure("Output tokens a second", over_time(moments, run.duration_s, "Output tokens a second"))
    plot = running(run.outcomes, run.start_s, run.duration_s, "Requests sent and not yet answered")
    yield from _figure("Requests sent and not yet answered", plot)
    yield "</section>"


def _distributions(run: LoadRun, setup: Setup, wanted: Wanted) -> Iterator[str]:
    found = times_s(run, setup.max_concurrency, setup.request_rate)
    yield "<section><h2>Latency</h2><table><thead><tr><th>milliseconds</th><th>mean</th><th>median</th><th>std</th>"
    yield "".join(f"<th>P{percent(p)}</th>" for p in wanted.percentiles) + "</tr></thead><tbody>"
    names = [name for name in METRICS if name in found]
    for name in names:
        numbers = statistics_ms(found[name], name, wanted.percentiles).values()
        cells = "".join(f"<td>{number:,.2f}</td>" for number in numbers)
        yield f"<tr><th>{NAMES[name][1]}</th>{cells}</tr>"
    yield "</tbody></table></section><section><h2>Distributions</h2>"
    for name in names:
        plot = distribution([value * 1e3 for value in found[name]], wanted.percentiles, NAMES[name][1])
        if plot and name in ("ttft", "tpot", "itl", "e2el"):
            yield from _figure(f"{NAMES[name][1]}, ms: how many", plot)
    yield "</section>"


def _timeline(run: LoadRun) -> Iterator[str]:
    keys = "".join(f'<i class="key {kind}"></i>{words}' for kind, words in _KEYS.items())
    yield "<section><h2>Requests</h2>"
    yield from _figure(keys, timeline(run.outcomes, run.start_s, run.duration_s))
    yield '<p class="note">A row a request, in the order of arrival; point at a bar for its times.</p></section>'


def _facts(result: Mapping[str, Any], setup: Setup, facts: Mapping[str, str]) -> Iterator[str]:
    rows = {
        "backend": setup.backend,
        "tokenizer": setup.tokenizer_id or "none",
        "burstiness": f"{setup.burstiness:g}",
        **facts,
        **setup.metadata,
        "date": f"{result['date']}",
    }
    yield '<section><h2>What, where and when</h2><table class="facts">'
    yield from (f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    yield "</table></section>"


def _figure(caption: str, plot: str) -> Iterator[str]:
    """caption: HTML of ours."""
    yield f"<figure><figcaption>{caption}</figcaption>"
    yield plot
    yield "</figure>"
