"""Which kernel runs for each kind of call, and what it does for few and for many rows.

Called by cli/inspect and page.py. What a kernel does is the catalog's to say. Does not choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from albireo.backends.backend import ExplainedCatalog
from albireo.graph.program import Call, Program
from albireo.graph.tuning import Tuning

#: (fewest, most) rows of a call.
BUCKETS = ((1, 1), (2, 8), (16, 64), (128, 128), (512, 512), (2048, 2048))
#: The buffer that says how wide a call without a weight is: kv_write has k, choose_keys q, all others x.
_OF_SHAPE = ("x", "k", "q")


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls that differ in layer and data only.

    Fields:
        what: family and shape. rows: the symbol that counts its rows.
        cells: for each bucket the regimes a call of so many rows meets; empty where a step never has so many.
    """

    what: str
    kernel: str
    rows: str
    count: int
    cells: tuple[tuple[str, ...], ...]


def kernel_kinds(program: Program, catalog: ExplainedCatalog) -> list[Kind]:
    """Every kind of call, in order of first use."""
    counts: dict[tuple[str, str, str, tuple[Tuning, ...]], int] = {}
    for call in program.calls:
        key = (_shape(program, call), call.kernel, call.rows, call.tuning)
        counts[key] = counts.get(key, 0) + 1
    kinds = []
    for (what, kernel, rows, tuning), count in counts.items():
        most = program.maxima[rows]
        buckets = [range(low, min(high, most) + 1) for low, high in BUCKETS]
        cells = tuple(catalog.regimes(kernel, bucket, tuning) for bucket in buckets)
        kinds.append(Kind(what, kernel, rows, count, cells))
    return kinds


def bucket_names() -> list[str]:
    return [f"{low:,}" if low == high else f"{low}-{high}" for low, high in BUCKETS]


def legend(kinds: Sequence[Kind], catalog: ExplainedCatalog) -> list[tuple[str, str]]:
    """(regime, in words) of every regime that occurs; levels that do not agree are named."""
    found: dict[tuple[str, str], list[str]] = {}
    for kind in kinds:
        for regime in dict.fromkeys(name for cell in kind.cells for name in cell):
            levels = found.setdefault((regime, catalog.regime_text(kind.kernel, regime)), [])
            levels.append(kind.kernel.rpartition(".")[2])
    names = [regime for regime, _ in found]
    return [
        (regime, f"{text} ({', '.join(dict.fromkeys(levels))})" if names.count(regime) > 1 else text)
        for (regime, text), levels in found.items()
    ]


def kernel_lines(program: Program, catalog: ExplainedCatalog) -> list[str]:
    """The table for reading."""
    kinds = kernel_kinds(program, catalog)
    names = ["rows of the call", *(kind.what for kind in kinds)]
    kernels = ["", *(kind.kernel for kind in kinds)]
    counts = ["", *(f"{kind.count}x {kind.rows}" for kind in kinds)]
    cells = [bucket_names(), *([", ".join(cell) or "-" for cell in kind.cells] for kind in kinds)]
    columns = [names, kernels, counts, *map(list, zip(*cells, strict=True))]
    widths = [max(map(len, column)) for column in columns]
    rows = zip(*columns, strict=True)
    table = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [f"{name:<8}{text}" for name, text in legend(kinds, catalog)]
    symbols = ", ".join(f"{symbol} up to {most:,}" for symbol, most in program.maxima.items())
    return [*table, "", *notes, f"{'-':<8}a step never has so many of these rows: {symbols}"]


def _shape(program: Program, call: Call) -> str:
    if call.family == "attention":
        a = call.attrs
        said = "chunks of" if a.get("in_chunks", False) else "window"
        window = f", {said} {a['window']}" if a["window"] else ""
        return f"attention {a['num_heads']} heads of {a['head_dim']}, {a['num_kv_heads']} KV{window}"
    constant = program.constants.get(call.args.get("weight", call.args.get("table", "")))
    if constant is None:
        role = next(role for role in _OF_SHAPE if role in call.args)
        return f"{call.family} {program.buffers[call.args[role]].cols}"
    act = f" {call.attrs['act']}" if call.attrs.get("act", "none") != "none" else ""
    also = "".join(f" + {role}" for role in ("bias", "residual") if role in call.args)
    shape = f"{constant.cols}" if constant.rows == 1 else f"{constant.rows} x {constant.cols}"
    return f"{call.family} {shape}{act}{also}"
