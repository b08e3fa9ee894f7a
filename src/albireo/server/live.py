"""What the engine is doing now, for people who watch: steps, requests with their progress, the KV blocks.

Fed by serving.py; each watcher gets events at the settings' interval, of which a slow one misses some. Nothing is
gathered while nobody watches. The events are described in docs/serving.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from albireo.engine_process.messages import Blocks, Stepped
from albireo.engine_process.tracked import Tracked

if TYPE_CHECKING:
    from albireo.server.serving import Serving

#: Steps kept between two events; of a faster engine the last ones are told.
MAX_STEPS = 1000


class Live:
    """Attributes:
    steps: since the last event; picture: of the KV blocks, the last one.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._steps: deque[list[float]] = deque(maxlen=MAX_STEPS)
        self._picture: Blocks | None = None
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._task: asyncio.Task[None] | None = None

    def stepped(self, step: Stepped) -> None:
        """A step was made."""
        if self._watchers:
            self._steps.append([step.started_s, step.ended_s - step.started_s, step.num_prompt, step.num_output])

    def blocks(self, picture: Blocks) -> None:
        """A picture of the KV blocks has come."""
        self._picture = picture

    def watch(self) -> asyncio.Queue[bytes | None]:
        """Begin to watch. Returns: events as they come; None: the end."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(2)
        self._watchers.add(queue)
        if self._task is None:
            self._serving.client.watch(self._serving.settings.watch_interval)
            self._task = asyncio.create_task(self._run())
        return queue

    def end(self, queue: asyncio.Queue[bytes | None]) -> None:
        """One watcher is to stop, or has."""
        self._watchers.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(None)

    def close(self) -> None:
        """End all watching."""
        for queue in list(self._watchers):
            self.end(queue)

    async def _run(self) -> None:
        while self._watchers:
            event = msgspec.json.encode(self.event())
            for queue in self._watchers:
                if not queue.full():
                    queue.put_nowait(event)
            await asyncio.sleep(self._serving.settings.watch_interval)
        self._serving.client.watch(None)
        self._steps.clear()
        self._picture = None
        self._task = None

    def event(self) -> dict[str, Any]:
        """One moment."""
        serving, health = self._serving, self._serving.client.health
        steps = list(self._steps)
        self._steps.clear()
        requests = list(serving.client.requests.values())
        picture = self._picture
        holders = [] if picture is None else picture.sequences
        return {
            "at_s": time.monotonic(),
            "state": health.state,
            "loaded_frac": health.loaded_frac,
            "num_restarts": health.num_restarts,
            "steps": steps,
            "requests": [_request(tracked) for tracked in requests],
            "kv": {
                "num_blocks": 0 if serving.client.ready is None else serving.client.ready.num_blocks,
                "block_size": 0 if serving.client.ready is None else serving.client.ready.block_size,
                "sequences": [[s.key, s.index, s.num_prompt, s.num_tokens, s.num_computed, s.blocks] for s in holders],
                "cached": [] if picture is None else picture.cached,
            },
        }


def _request(tracked: Tracked) -> dict[str, Any]:
    params = tracked.submission.params
    return {
        "key": tracked.key,
        "id": tracked.request_id,
        "arrival_s": tracked.times.arrival_s,
        "state": "waiting" if tracked.times.last_token_s is None else "running",
        "prompt_tokens": len(tracked.submission.prompt_token_ids),
        "cached_tokens": tracked.num_cached_tokens,
        "output_tokens": [len(continuation.token_ids) for continuation in tracked.continuations],
        "max_tokens": params.max_tokens,
        "num_preemptions": tracked.num_preemptions,
        "num_restarts": tracked.num_restarts,
    }
