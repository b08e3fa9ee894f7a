"""What watchers are told: compact, bounded, and nothing while nobody watches."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.engine_process.messages import Blocks, SequenceBlocks, Stepped
from albireo.server import live
from albireo.server.endpoints.status import Stats
from albireo.server.live import Live
from albireo.server.live_event import _tables, bars, runs, spread


@given(st.lists(st.integers(1, 60)))
def test_runs_give_the_blocks_back(blocks: list[int]) -> None:
    found = runs(blocks)
    assert [b for first, num in zip(found[::2], found[1::2], strict=True) for b in range(first, first + num)] == blocks


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9), st.integers(0, 9), st.integers(0, 9))), st.integers(1, 9))
def test_bars_lose_no_token_and_are_few(steps: list[tuple[float, float, int, int]], most: int) -> None:
    found = bars(steps, most)
    assert len(found) <= 2 * most
    for field in (2, 3):
        assert sum(bar[field] for bar in found) == sum(step[field] for step in steps)
    assert sum(bar[4] for bar in found) == len(steps)
    assert sum(bar[1] for bar in found) == pytest.approx(sum(step[1] for step in steps), abs=1e-4)
    # prompts stay visible: nothing that computed none is summed with them
    assert sum(bar[4] for bar in found if bar[2]) == sum(step[2] > 0 for step in steps)


def test_the_spread_of_gaps() -> None:
    assert spread([]) == []
    assert spread([0.3, 0.1, 0.2]) == [3, 0.2, 0.2, 0.3]


class Client:
    """The engine's, as far as Live knows it. asked: what it was told about watching."""

    def __init__(self) -> None:
        self.health = SimpleNamespace(state="ready", loaded_frac=1.0, num_restarts=0)
        self.requests: dict[int, Any] = {}
        self.ready = None
        self.engines = [SimpleNamespace(health=self.health, requests=self.requests, pid=None)]
        self.asked: list[float | None] = []

    def watch(self, interval_s: float | None) -> None:
        self.asked.append(interval_s)


def made() -> tuple[Live, Client]:
    client = Client()
    serving: Any = SimpleNamespace(client=client, settings=SimpleNamespace(watch_interval=0.001), is_draining=False)
    serving.live = Live(serving)
    return serving.live, client


def step() -> Stepped:
    return Stepped([], 1.0, 1.5, 3, 2, 2, 0, 0.25, 0, 0, 0)


async def settle(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


def test_blocks_of_each_group_have_the_place_that_a_window_has_left_them() -> None:
    held = SequenceBlocks(7, 0, 20, 30, 29, 16, [4, 5], [[0, 9], [0, 8]])
    assert list(_tables(held, 100)) == [[104, 2], [[0, [104, 2]], [1, [109, 1]], [1, [108, 1]]]]
    alone = SequenceBlocks(7, 0, 20, 30, 29, 16, [0, 0, 5, 6])
    assert list(_tables(alone, 0)) == [[5, 2], [[2, [5, 2]]]]
    assert list(_tables(SequenceBlocks(7, 0, 20, 30, 29, 16, [4, 5]), 0)) == [[4, 2]]


def test_nothing_is_kept_while_nobody_watches() -> None:
    async def main() -> None:
        watched, client = made()
        watched.stepped(0, step(), {})
        assert not watched._gathered.has_news() and client.asked == []
        events = watched.watch()
        assert client.asked == [0.001]
        assert json.loads(await events.get())["state"] == "ready"
        watched.stepped(0, step(), {})
        watched.blocks(0, Blocks(1.0, [SequenceBlocks(7, 0, 20, 30, 29, 16, [4, 5])], [9, 2, 3]))
        event = json.loads(await events.get())
        while not event["kv"]["sequences"]:
            event = json.loads(await events.get())
        assert event["kv"] == {"at_s": 1.0, "sequences": [[7, 0, 20, 30, 29, 16, [4, 2]]], "cached": [2, 2, 9, 1]}
        watched.blocks(0, Blocks(2.0, [], [], (3, 4, 20)))
        while "states" not in event["kv"]:
            event = json.loads(await events.get())
        assert event["kv"] == {"at_s": 2.0, "sequences": [], "cached": [], "states": [3, 4, 20]}
        watched.end(events)
        await settle(lambda: client.asked == [0.001, None])
        assert watched._gathered.pictures == {}

    asyncio.run(main())


def test_a_watcher_that_leaves_is_forgotten() -> None:
    async def main() -> None:
        watched, client = made()
        is_gone = asyncio.Event()
        found: list[dict[str, Any]] = []

        async def receive() -> Any:
            await is_gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if body := message.get("body"):
                found.append(json.loads(body[6:]))
                watched.stepped(0, step(), {})
                if len(found) == 3:
                    is_gone.set()

        await Stats(watched._serving)({"type": "http", "method": "GET"}, receive, send)
        assert found[1]["steps"] == [[1.0, 0.5, 3, 2, 1]] and found[0]["steps"] == []
        await settle(lambda: client.asked == [0.001, None])
        assert watched._watchers == set()

    asyncio.run(main())


def test_a_watcher_that_does_not_read_costs_two_events_and_holds_up_nobody() -> None:
    async def main() -> None:
        watched, client = made()
        client.requests[1] = SimpleNamespace(  # work, so that events come
            key=1, ticket=1, replica=0, request_id="cmpl-1",
            times=SimpleNamespace(arrival_s=0.0, last_token_s=None, first_token_s=None),
            submission=SimpleNamespace(prompt_token_ids=[1], params=SimpleNamespace(max_tokens=4), images=()),
            num_cached_tokens=0, continuations=[], num_preemptions=0, num_restarts=0,
        )  # fmt: skip
        asleep, awake = watched.watch(), watched.watch()
        for _ in range(5 * live.MAX_STEPS):
            watched.stepped(0, step(), {})
        assert len(watched._gathered.steps) == live.MAX_STEPS
        for _ in range(20):
            assert json.loads(await awake.get())["requests"][0]["key"] == 1
        assert asleep.qsize() == 2
        watched.close()
        assert [asleep.get_nowait(), asleep.get_nowait()][1] is None

    asyncio.run(main())
