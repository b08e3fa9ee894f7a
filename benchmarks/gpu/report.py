"""What a part of first_hour.py finds: rows; and how they are kept and shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One finding.

    Fields:
        value, unit: a number; None where only the note says something.
        is_good: whether it is what it should be, where that can be said.
        data: more of it, for the file alone.
    """

    name: str
    value: float | None = None
    unit: str = ""
    note: str = ""
    is_good: bool | None = None
    data: dict[str, Any] = field(default_factory=dict)


def verdict(what: str, constant: str, now: str, seconds: Mapping[str, float]) -> Row:
    """Which of several choices is the fastest, and how much of the time now it saves: what a person sets a constant by.

    Args: constant: where it stands. now: the name of what is taken, which is among seconds.
    """
    best = min(seconds, key=lambda name: seconds[name])
    gain = seconds[now] / seconds[best]
    # a median of a few launches is not better than this
    words = "leave it" if best == now or gain < 1.015 else f"set {constant}"
    times = [f"{name} ({seconds[name] * 1e6:.1f} us)" for name in (best, now)]
    note = f"best: {times[0]}, now: {times[1]}, gain {gain:.3f}; {words}"
    data = {"best": best, "now": now, "seconds": dict(seconds)}
    return Row(f"{VERDICT}{what}", gain, "x", note, data=data)


def target(what: str, value: float, wanted: float, unit: str = "", note: str = "", is_least: bool = True) -> Row:
    """A number that is to reach another, or to stay below it; also told among the last lines. NaN: it is a part of what
    is not known of this GPU."""
    is_reached = value >= wanted if is_least else value <= wanted
    found = "not known here" if value != value else "reached" if is_reached else "missed"
    words = f"{found}: {'at least' if is_least else 'at most'} {wanted:g}"
    return Row(f"{TARGET}{what}", value, unit, f"{words}; {note}" if note else words, data={"wanted": wanted})


#: Rows that begin so are told once more behind all others.
TARGET, VERDICT = "target: ", "verdict: "


@dataclass
class PartResult:
    """status: ok, wrong (a row is not good), failed, skipped or late; reason: of the last three."""

    name: str
    status: str
    seconds: float
    reason: str = ""
    rows: list[Row] = field(default_factory=list)


_BAD = ("wrong after", "failed after", "late after")


def write(path: Path, facts: dict[str, Any], results: Sequence[PartResult]) -> None:
    """All of it, again after each part, so that nothing is lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps({**facts, "parts": [asdict(result) for result in results]}, indent=1) + "\n")
    new.replace(path)  # whole, whenever the call is cut off


def table(results: Sequence[PartResult]) -> str:
    """A line a row, and one for each part that has none or did not end well; last, targets, verdicts, what is wrong."""
    lines = [("part", "what", "value", "", "")]
    for result in results:
        if result.status != "ok" or not result.rows:
            lines.append((result.name, f"{result.status} after {result.seconds:.0f} s", "", "", result.reason))
        for row in result.rows:
            value = "" if row.value is None else f"{row.value:.4g}"
            mark = "" if row.is_good is not False else "WRONG "
            lines.append((result.name, row.name, value, row.unit, mark + row.note))
    told = lines[1:]
    for start in (TARGET, VERDICT):
        lines += [line for line in told if line[1].startswith(start)]
    lines += [line for line in told if line[4].startswith("WRONG ") or line[1].startswith(_BAD)]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    form = f"{{:<{widths[0]}}}  {{:<{widths[1]}}}  {{:>{widths[2]}}} {{:<{widths[3]}}}  {{}}"
    return "\n".join(form.format(*line).rstrip() for line in lines)
