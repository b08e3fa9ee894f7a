"""Which norms every thread may compute for itself, so that a step of few rows has a barrier less for each.

Asked by backends when they bind a program, and by whoever counts barriers. Derived from a program, never stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from albireo.dtypes import ROW_CODES
from albireo.graph.program import Buffer, Call, Program
from albireo.graph.program_spec import Accesses, accesses, conflict

#: Most rows of a call that threads compute each for themselves: a norm of 8 rows takes less time than a barrier.
FEW_ROWS = 8
_READERS = ("linear", "qkv_rope_kv", "head_top")


def private_norms(calls: Sequence[Call], buffers: Mapping[str, Buffer], maxima: Mapping[str, int]) -> frozenset[int]:
    """Indices of norms whose rows only the next call reads, as its x: a thread needs no other thread's then.

    Behind such a norm of few rows no barrier is needed. A thread that is late may read rows that others overwrite
    already; they do so behind a barrier that is only met when all of the next call's work is taken, so that nothing
    comes of what the late thread makes of them. So the next call itself must not write there.
    """
    touched = [accesses(call, buffers, maxima) for call in calls]
    found = frozenset(
        i
        for i in range(len(calls) - 1)
        if _is_of_rows(calls[i], buffers)
        and calls[i + 1].family in _READERS
        and calls[i + 1].rows == calls[i].rows
        and [role for role, name in calls[i + 1].args.items() if name == calls[i].args["out"]] == ["x"]
        and not _is_read_later(i, calls, buffers, touched)
    )
    return frozenset(
        i
        for i in found
        if not _is_overwritten(i, found, calls, touched) and not _is_relied_on(i, found, calls, touched)
    )


def _is_of_rows(call: Call, buffers: Mapping[str, Buffer]) -> bool:
    """A norm that nothing is added to, or the rounding of rows to 8-bit codes."""
    return (call.family == "norm" and "residual" not in call.args) or (
        call.family == "elementwise" and buffers[call.args["out"]].dtype in ROW_CODES
    )


def few_barriers(program: Program) -> int:
    """Barriers of a step of at most FEW_ROWS rows on several threads."""
    private = private_norms(program.calls, program.buffers, program.maxima)
    return sum(call.barrier and i not in private for i, call in enumerate(program.calls))


def _is_overwritten(index: int, private: frozenset[int], calls: Sequence[Call], touched: Sequence[Accesses]) -> bool:
    """Whether what this one reads is written again before the next call's work is sure to be taken: a thread that is
    late would make the rows of its part of that work from what others wrote."""
    reads = [each for each in touched[index] if not each[2]]
    for behind in range(index + 1, len(calls)):
        if conflict(reads, touched[behind]):
            return True
        if calls[behind].barrier and behind not in private and calls[behind].rows in ("T", calls[index].rows):
            return False
    return False


def _is_relied_on(index: int, private: frozenset[int], calls: Sequence[Call], touched: Sequence[Accesses]) -> bool:
    """Whether a call before this one has no barrier of its own because this one has: what it touches is touched again
    behind this one, before another barrier is sure to be met."""
    rows = calls[index].rows

    def is_met(i: int, of: str) -> bool:
        return calls[i].barrier and i not in private and calls[i].rows in ("T", of)

    for before in reversed(range(index)):
        if is_met(before, rows):
            return False
        if before in private or calls[before].barrier or rows not in ("T", calls[before].rows):
            continue
        for behind in range(index + 1, len(calls)):
            if conflict(touched[before], touched[behind]):
                return True
            if is_met(behind, calls[before].rows):
                break
    return False


def _is_read_later(
    index: int,
    calls: Sequence[Call],
    buffers: Mapping[str, Buffer],
    touched: Sequence[Accesses],
) -> bool:
    """Whether a call behind the next one reads what this one wrote, before another writes there."""
    start = buffers[calls[index].args["out"]].offset
    stop = next(stop for begin, stop, writes in touched[index] if writes and begin == start)
    for ranges in touched[index + 2 :]:
        meets = [writes for begin, end, writes in ranges if begin < stop and start < end]
        if meets:
            return not all(meets)
    return False
