"""Which tasks wait for what a launch does, inside kernels: work is shared out by their number, not by all there are.

Used by kernels/sample_*.py. draws: [S] int32 says how each task draws, or NOTHING_TO_DRAW once its token is known. A
launch over tiles has PROGRAMS programs at most, and each takes every so many of the waiting tasks' tiles: where nobody
waits, it costs the start of one program on each processor, not of a program for every tile. What is done for a tile
does not depend on who does it.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Its token is known; it draws from the whole row; with top-p of the whole row; with top-k.
NOTHING_TO_DRAW, PLAIN, OF_ALL, OF_SOME = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
#: Two for each of the processors of an H100 or H200.
PROGRAMS = 264


def programs_of(num_tasks: int, tiles: int) -> tuple[int]:
    """The grid of a launch over tiles."""
    return (min(PROGRAMS, num_tasks * tiles),)


@triton.jit
def waiting(draws, num_tasks, first, last, TASKS: tl.constexpr):
    """[TASKS] int32, each task's place among those whose draws is first to last, -1 of others; and their number."""
    each = tl.arange(0, TASKS)
    how = tl.load(draws + each, mask=each < num_tasks, other=0)
    waits = ((how >= first) & (how <= last)).to(tl.int32)
    return tl.where(waits != 0, tl.cumsum(waits, 0) - 1, -1), tl.sum(waits, 0)


@triton.jit
def task_and_tile(places, item, tiles, rows, flags, TASKS: tl.constexpr):
    """The task and the tile that an item of work is; the task's row, and whether it has a changed one of its own."""
    task = tl.sum(tl.where(places == item // tiles, tl.arange(0, TASKS), 0), 0)
    return task, item % tiles, tl.load(rows + task), (tl.load(flags + task) & 1) != 0
