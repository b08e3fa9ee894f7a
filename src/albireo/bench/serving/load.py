"""Open-loop load: every request is sent at its time, whether or not the ones before it were answered.

Called by cli/bench/serve. Does not know HTTP or what a request holds; clock and sleep are arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from albireo.bench.serving.outcome import Outcome

#: Sends the request with this index.
Send = Callable[[int], Awaitable[Outcome]]
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class LoadRun:
    """Outcomes in the order of the requests, and what it took from the start to the last of them.

    Fields:
        start_s: when it began, on the clock of the outcomes.
    """

    outcomes: list[Outcome]
    start_s: float
    duration_s: float

    @property
    def lateness_s(self) -> list[float]:
        """What each request was behind its schedule when the client got to it; waiting for others to end aside."""
        return [max(0.0, each.start_s - each.queue_s - each.scheduled_s) for each in self.outcomes]


async def run_load(
    send: Send,
    offsets: Sequence[float],
    max_concurrency: int | None,
    clock: Callable[[], float],
    sleep: Sleep = asyncio.sleep,
    on_done: Callable[[], None] = lambda: None,
) -> LoadRun:
    """Send each request at its offset, at most max_concurrency at a time, and wait for all.

    The times are absolute: one request that is late does not make the next late. One that has to wait for others is
    sent as soon as one of them ends, first come first served.
    """
    gate = asyncio.Semaphore(max_concurrency) if max_concurrency else nullcontext()
    start_s = clock()

    async def one(idx: int) -> Outcome:
        arrived_s = clock()
        async with gate:
            began_s = clock()
            outcome = await send(idx)
        outcome.scheduled_s = start_s + offsets[idx]
        outcome.queue_s = began_s - arrived_s if max_concurrency else 0.0
        on_done()
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = []
        for idx in sorted(range(len(offsets)), key=offsets.__getitem__):
            remaining_s = start_s + offsets[idx] - clock()
            if remaining_s > 0:
                await sleep(remaining_s)
            tasks.append((idx, group.create_task(one(idx))))
    duration_s = clock() - start_s
    return LoadRun([task.result() for _, task in sorted(tasks, key=lambda pair: pair[0])], start_s, duration_s)
