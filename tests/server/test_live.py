"""Watchers: they get events while they listen, and nothing is gathered afterwards."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from albireo.engine_process.client import Health
from albireo.engine_process.messages import Stepped
from albireo.server.endpoints.status import Stats
from albireo.server.live import MAX_STEPS, Live

STEP = Stepped([], 1.0, 1.5, 3, 4, 1, 0, 0.5, 0, 0, 0)


def make() -> tuple[Any, list[float | None]]:
    watched: list[float | None] = []
    client = SimpleNamespace(health=Health(), requests={}, ready=None, watch=watched.append)
    serving = SimpleNamespace(client=client, settings=SimpleNamespace(watch_interval=0.001))
    serving.live = Live(serving)  # type: ignore[arg-type]
    return serving, watched


async def listen(serving: Any, num_events: int) -> list[dict[str, Any]]:
    """GET /v1/stats, and leave after some events."""
    is_gone = asyncio.Event()
    found: list[dict[str, Any]] = []

    async def receive() -> Any:
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if body := message.get("body"):
            found.append(json.loads(body[6:]))
            serving.live.stepped(STEP)
            if len(found) == num_events:
                is_gone.set()

    await Stats(serving)({"type": "http", "method": "GET"}, receive, send)
    return found


def test_a_watcher_that_leaves_is_forgotten() -> None:
    async def watch() -> None:
        serving, watched = make()
        found = await listen(serving, 3)
        assert [event["state"] for event in found[:3]] == ["loading"] * 3
        assert found[1]["steps"] == [[1.0, 0.5, 3, 4]] and found[0]["steps"] == []
        while len(watched) < 2:
            await asyncio.sleep(0.001)
        assert watched == [0.001, None] and serving.live._watchers == set()

    asyncio.run(watch())


def test_nothing_is_gathered_while_nobody_watches() -> None:
    serving, _ = make()
    serving.live.stepped(STEP)
    assert serving.live.event()["steps"] == []


def test_a_slow_watcher_misses_events_and_steps_are_bounded() -> None:
    async def watch() -> None:
        serving, _ = make()
        queue = serving.live.watch()
        for _ in range(MAX_STEPS + 50):
            serving.live.stepped(STEP)
        await asyncio.sleep(0.02)
        assert queue.full()
        assert len(json.loads(queue.get_nowait())["steps"]) == MAX_STEPS
        serving.live.close()
        events = [queue.get_nowait() for _ in range(queue.qsize())]
        assert events[-1] is None

    asyncio.run(watch())
