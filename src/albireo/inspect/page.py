"""One HTML page about a model or a build: summary, the picture of a layer, passes, kernels, memory, weights, totals.

Called by cli/inspect. The page needs nothing beside itself: styles and drawings are inside, and no script is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from albireo.backends.backend import ExplainedCatalog
from albireo.graph.private_norms import FEW_ROWS
from albireo.graph.program import Program
from albireo.graph.report import PassRecord
from albireo.graph.show import totals
from albireo.inspect import svg
from albireo.inspect.arena import arena_map
from albireo.inspect.arena_picture import arena_picture
from albireo.inspect.kernels import bucket_names, kernel_kinds, legend
from albireo.inspect.layer_picture import layer_picture
from albireo.inspect.story import Explained, Story

_STYLE = """
body{background:var(--paper);color:var(--ink);margin:0 auto;max-width:1200px;padding:28px 24px 60px;line-height:1.5;
font-size:14px}
h1{font-size:28px;margin:0 0 4px}
h2{font-size:20px;margin:44px 0 6px;border-bottom:1px solid var(--edge);padding-bottom:6px}
p{margin:6px 0 14px;color:var(--soft);max-width:860px}
.scroll{overflow-x:auto}
svg{max-width:100%;height:auto;display:block}
table{border-collapse:collapse;width:100%;font-size:13px}
th{text-align:left;font-weight:650;color:var(--soft);font-size:12px}
th,td{padding:7px 14px 7px 0;border-bottom:1px solid var(--edge);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code,.mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:12px}
.tag{display:inline-block;border:1px solid var(--edge);border-radius:10px;padding:0 8px;font-size:11.5px;
white-space:nowrap}
.good{color:#3f9f5f;font-weight:650}
.dim{color:var(--soft)}
.no{color:var(--accent)}
.facts td:first-child{color:var(--soft);width:130px;white-space:nowrap}
"""


def page(
    explained: Explained,
    story: Story,
    catalog: ExplainedCatalog,
    facts: Sequence[tuple[str, str]],
    name: str,
    model: str,
) -> str:
    """The page as text. facts: (what, words) of the summary; name: of the directory; model: its architecture."""
    program = explained.program
    sections = [
        ("Summary", "", _facts(facts)),
        ("Fusion in one layer", "", layer_picture(explained, story, model, style=False)),
        ("Passes", _PASSES, _table(("pass", "what is gained", "numerics", "what it did"), _passes(program))),
        ("Kernels", _KERNELS, _kernels(program, catalog)),
        ("Memory map of the arena", _arena_words(program), arena_picture(program, style=False)),
        ("Weights by packing", _WEIGHTS, _table(("packing", "#constants", "#bytes", "#of all"), _weights(program))),
        ("Totals", "", _table(("what", "#value"), _totals(program))),
    ]
    body = [f"<h1>{_escape(name)}</h1>", f"<p>What the compiler made of it: a {_escape(model)} model.</p>"]
    for title, words, content in sections:
        body += [f"<h2>{title}</h2>", *([f"<p>{_escape(words)}</p>"] if words else [])]
        body.append(f'<div class="scroll">{content}</div>')
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_escape(name)}: what the compiler did</title>\n<style>{svg.STYLE}{_STYLE}</style>\n</head>\n"
    )
    return head + '<body class="alb">\n' + "\n".join(body) + "\n</body>\n</html>\n"


_PASSES = (
    "Each pass looks for one pattern and rewrites it. Exact: the result is the same to the last bit; reorder: as many "
    "roundings in another order. Where a pattern nearly matched, it says what was in the way."
)
_KERNELS = (
    "A call has one kernel; how the kernel goes about its work depends on how many rows it is given: one while a "
    "single answer is written, thousands while a prompt is read."
)
_WEIGHTS = "Weights are laid out once as their kernels stream them: p64 in panels of 64 columns, row as plain rows."

_escape = svg.escape


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    """A fact without a name goes on with the one before."""
    joined: list[tuple[str, list[str]]] = []
    for name, words in facts:
        if name or not joined:
            joined.append((name, []))
        joined[-1][1].append(_escape(words))
    rows = (f"<tr><td>{_escape(name)}</td><td>{'<br>'.join(lines)}</td></tr>" for name, lines in joined)
    return f'<table class="facts">{"".join(rows)}</table>'


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """heads that begin with # are of columns of numbers; cells are HTML already."""
    kinds = [' class="n"' if head.startswith("#") else "" for head in heads]
    top = "".join(f"<th{kind}>{_escape(head.lstrip('#'))}</th>" for head, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in rows
    )
    return f"<table><tr>{top}</tr>\n{body}</table>"


def _passes(program: Program) -> Iterator[Sequence[str]]:
    for record in program.report:
        tag = f'<span class="tag">{_escape(record.numerics)}</span>'
        yield f"<b>{_escape(record.name)}</b>", _escape(record.why), tag, "<br>".join(_did(record))


def _did(record: PassRecord) -> Iterator[str]:
    if record.outcome:
        yield f'<span class="{"good" if record.fired else "dim"}">{_escape(record.outcome)}</span>'
    yield from (_escape(note) for note in record.notes)
    yield from (f'<span class="no">{_escape(line)}</span>' for line in record.refused)


def _kernels(program: Program, catalog: ExplainedCatalog) -> str:
    kinds = kernel_kinds(program, catalog)
    rows = (
        (
            _escape(kind.what),
            f"<code>{_escape(kind.kernel)}</code>",
            f"{kind.count}",
            f"{kind.rows} ≤ {program.maxima[kind.rows]:,}",
            *(", ".join(cell) if cell else '<span class="dim">–</span>' for cell in kind.cells),
        )
        for kind in kinds
    )
    names = [f"{name} row{'s' * (name != '1')}" for name in bucket_names()]
    table = _table(("call", "kernel", "#calls", "rows", *names), rows)
    notes = "".join(f"<p><b>{_escape(name)}</b>: {_escape(text)}</p>" for name, text in legend(kinds, catalog))
    return f"{table}{notes}<p><b>–</b>: a step never has so many of these rows</p>"


def _arena_words(program: Program) -> str:
    arena = arena_map(program)
    return (
        "Activations live in one block of memory, the arena, and share its bytes whenever they do not live at the same "
        f"time. It takes {svg.num_bytes(arena.peak)}; during one call {svg.num_bytes(arena.lower_bound)} live at once, "
        f"so no plan needs fewer; without sharing it would take {svg.num_bytes(arena.unshared)}."
    )


def _weights(program: Program) -> Iterator[Sequence[str]]:
    groups: dict[str, list[int]] = {}
    for constant in program.constants.values():
        groups.setdefault(constant.packing, []).append(constant.num_bytes)
    for packing, sizes in groups.items():
        share = sum(sizes) / max(program.weight_bytes, 1)
        yield f"<code>{_escape(packing)}</code>", f"{len(sizes):,}", f"{sum(sizes):,}", f"{share:.1%}"


def _totals(program: Program) -> Iterator[Sequence[str]]:
    numbers = totals(program)
    yield "operations of the model", f"{numbers.ops_before:,}"
    yield "calls of the program", f"{numbers.ops_after:,}"
    yield "barriers a step", f"{numbers.barriers:,}; {numbers.many_barriers:,} beyond {FEW_ROWS} rows"
    yield "arena", f"{numbers.arena_bytes:,} B"
    yield "weights in memory", f"{numbers.weight_bytes:,} B"
    yield "moved by a step of one token", f"{numbers.bytes_per_token:,} B"
    yield "and for each position of its context", f"{numbers.kv_bytes_per_position:,} B"
