"""Which norms every thread may compute for itself, so that a step of few rows has a barrier less for each.

Asked by backends when they bind a program, and by whoever counts barriers. Derived from a program, never stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from albireo.dtypes import TOKEN
from albireo.graph.program import Buffer, Call, Program
from albireo.graph.program_spec import accesses

#: Most rows of a call that threads compute each for themselves: a norm of 8 rows takes less time than a barrier.
FEW_ROWS = 8
_READERS = ("linear", "qkv_rope_kv", "head_top")


def private_norms(calls: Sequence[Call], buffers: Mapping[str, Buffer], maxima: Mapping[str, int]) -> frozenset[int]:
    """Indices of norms whose rows only the next call reads, as its x: a thread needs no other thread's then.

    Behind such a norm of few rows no barrier is needed. A thread that is late may read rows that others overwrite
    already; they do so behind a barrier that is only met when all of the next call's work is taken, so that nothing
    comes of what the late thread makes of them.
    """
    touched = [accesses(call, buffers, maxima) for call in calls]
    return frozenset(
        i
        for i in range(len(calls) - 1)
        if _is_of_rows(calls[i], buffers)
        and calls[i + 1].family in _READERS
        and calls[i + 1].rows == calls[i].rows
        and [role for role, name in calls[i + 1].args.items() if name == calls[i].args["out"]] == ["x"]
        and not _is_read_later(i, calls, buffers, touched)
    )


def _is_of_rows(call: Call, buffers: Mapping[str, Buffer]) -> bool:
    """A norm, or the rounding of rows to 8-bit codes."""
    return call.family == "norm" or (call.family == "elementwise" and buffers[call.args["out"]].dtype == TOKEN)


def few_barriers(program: Program) -> int:
    """Barriers of a step of at most FEW_ROWS rows on several threads."""
    private = private_norms(program.calls, program.buffers, program.maxima)
    return sum(call.barrier and i not in private for i, call in enumerate(program.calls))


def _is_read_later(
    index: int,
    calls: Sequence[Call],
    buffers: Mapping[str, Buffer],
    touched: Sequence[Sequence[tuple[int, int, bool]]],
) -> bool:
    """Whether a call behind the next one reads what this one wrote, before another writes there."""
    start = buffers[calls[index].args["out"]].offset
    stop = next(stop for begin, stop, writes in touched[index] if writes and begin == start)
    for ranges in touched[index + 2 :]:
        meets = [writes for begin, end, writes in ranges if begin < stop and start < end]
        if meets:
            return not all(meets)
    return False
