"""Open-loop load in time that is simulated: what is sent when, whatever the server does."""

from __future__ import annotations

import asyncio
import heapq
import itertools

import pytest

from albireo.bench.serving.load import run_load
from albireo.bench.serving.outcome import Outcome


class Time:
    """A clock that jumps to the next sleeper when everybody sleeps."""

    def __init__(self) -> None:
        self.now = 50.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._order = itertools.count()

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), woken))
        await woken.wait()

    async def go(self) -> None:
        while True:
            for _ in range(20):  # all that is ready runs first
                await asyncio.sleep(0)
            if self._sleepers:
                moment, _, woken = heapq.heappop(self._sleepers)
                self.now = max(self.now, moment)
                woken.set()


def simulate(offsets, took_s, max_concurrency=None, hold_up=None):
    """Each request takes took_s[i]. Returns the run and the times at which requests were sent, from the start."""

    async def run():
        time = Time()
        sent = {}
        done = []

        async def send(idx):
            sent[idx] = time() - 50.0
            outcome = Outcome(start_s=time(), prompt_len=idx)
            if hold_up == idx:
                time.now += 3.0  # the processor was taken away
            await time.sleep(took_s[idx])
            outcome.latency_s = time() - outcome.start_s
            return outcome

        going = asyncio.create_task(time.go())
        found = await run_load(send, offsets, max_concurrency, time, time.sleep, lambda: done.append(time()))
        going.cancel()
        assert len(done) == len(offsets)
        return found, sent

    return asyncio.run(run())


def test_a_slow_server_does_not_slow_the_load():
    offsets = [0.5, 1.0, 1.25, 4.0]
    run, sent = simulate(offsets, [100.0] * 4)
    assert [sent[i] for i in range(4)] == pytest.approx(offsets)
    assert run.duration_s == pytest.approx(104.0)
    assert [each.queue_s for each in run.outcomes] == [0.0] * 4
    assert max(run.lateness_s) == pytest.approx(0.0)


def test_outcomes_are_in_the_order_of_requests_not_of_arrival_or_end():
    run, sent = simulate([3.0, 1.0, 2.0], [1.0, 9.0, 1.0])
    assert [each.prompt_len for each in run.outcomes] == [0, 1, 2]
    assert [sent[i] for i in range(3)] == pytest.approx([3.0, 1.0, 2.0])


def test_a_limit_makes_requests_wait_first_come_first_served():
    run, sent = simulate([0.0, 0.0, 1.0, 1.5], [4.0, 2.0, 2.0, 2.0], max_concurrency=2)
    assert [sent[i] for i in range(4)] == pytest.approx([0.0, 0.0, 2.0, 4.0])
    assert [each.queue_s for each in run.outcomes] == pytest.approx([0.0, 0.0, 1.0, 2.5])
    # Waiting for others is the limit's doing, not the client's.
    assert max(run.lateness_s) == pytest.approx(0.0)
    assert run.duration_s == pytest.approx(6.0)


def test_one_late_request_does_not_make_the_next_late():
    run, sent = simulate([1.0, 2.0, 8.0], [1.0] * 3, hold_up=0)
    assert sent[1] == pytest.approx(4.0)  # two seconds late: the client slept through its time
    assert sent[2] == pytest.approx(8.0)
    assert run.lateness_s == pytest.approx([0.0, 2.0, 0.0])
