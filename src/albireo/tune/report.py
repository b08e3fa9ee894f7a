"""What a session found, as lines of text.

Called by cli/tune.py, and through it by cli/build.py. Does not measure or write.
"""

from __future__ import annotations

from collections.abc import Iterator

from albireo.graph.tuning import BUCKET_NAMES, Entry
from albireo.tune.session import StepCheck, TuneResult


def table_lines(result: TuneResult) -> Iterator[str]:
    """A line a point, buckets in order, most weights first; then whole steps."""
    width = max((len(str(entry.key)) for entry in result.table.entries), default=0)
    yield f"{'rows':<9}{'call':<{width + 2}}{'before':>10}{'after':>10}   change"
    for entry in sorted(result.table.entries, key=lambda e: e.bucket):
        yield f"{BUCKET_NAMES[entry.bucket]:<9}{entry.key!s:<{width + 2}}{_times(entry)}   {_change(entry)}"
    for step in result.steps:
        yield f"{BUCKET_NAMES[step.bucket]:<9}{'whole steps':<{width + 2}}{_times(step)}   {_verdict(step)}"


def summary(result: TuneResult) -> str:
    """How many choices changed, and what was not looked at."""
    changed = sum(bool(entry.tuning.changes()) for entry in result.table.entries)
    measured, left = len(result.table.entries), result.num_left
    ending = f"; {left} left as they are, as the time was over" if left else ""
    return f"{measured} of {measured + left} choices measured, {changed} changed, {result.elapsed_s:.0f} s{ending}"


def change_text(entry: Entry) -> str:
    """fetch_bytes 32768 -> 65536, claims 4 -> 16."""
    return ", ".join(f"{name} {old} -> {new}" for name, (old, new) in entry.tuning.changes().items())


def _change(entry: Entry) -> str:
    text = change_text(entry)
    return f"{_gain(entry.before_s, entry.after_s)}  {text}" if text else "measured, kept"


def _verdict(step: StepCheck) -> str:
    if not step.before_s:
        return "changes of these rows are dropped: no time was left to try them in whole steps"
    gain = _gain(step.before_s, step.after_s)
    return f"{gain}  changes of these rows are dropped: steps got slower" if step.is_dropped else gain


def _times(times: Entry | StepCheck) -> str:
    return f"{_ms(times.before_s):>10}{_ms(times.after_s):>10}"


def _ms(seconds: float) -> str:
    if seconds < 1e-3:
        return f"{seconds * 1e6:.3g} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.2f} s"


def _gain(before: float, after: float) -> str:
    return f"{(before / after - 1) * 100:+.1f} %" if after else "?"
