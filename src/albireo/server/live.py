"""What the engine is doing now, for people who watch: steps, requests with their progress, the KV blocks.

Fed by serving.py; each watcher gets events at the settings' interval, of which a slow one misses some. Nothing is
gathered while nobody watches. What an event holds is made by live_event.py.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import msgspec

from albireo.engine_process.messages import Blocks, Stepped
from albireo.engine_process.tracked import Tracked
from albireo.server.live_event import Gathered, Watched, make_event

#: Steps, first tokens, gaps and ended requests kept between two events; of a faster engine the last ones are told.
MAX_STEPS, MAX_FIRST, MAX_GAPS, MAX_OVER = 1000, 64, 4000, 64
#: Making events takes at most one part in so many of the time, however large the KV pool.
EVENT_SHARE = 20
#: Seconds between events while nothing happens.
QUIET_S = 1.0


class Live:
    """Invariant: what is kept is bounded, per watcher and for all of them."""

    def __init__(self, serving: Watched) -> None:
        self._serving = serving
        self._gathered = Gathered(
            deque(maxlen=MAX_STEPS), deque(maxlen=MAX_FIRST), deque(maxlen=MAX_GAPS), deque(maxlen=MAX_OVER)
        )
        self._watchers: set[asyncio.Queue[bytes | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._quiet_until_s = 0.0

    def stepped(self, index: int, step: Stepped, requests: Mapping[int, Tracked]) -> None:
        """An engine made a step; its tokens are not given to their requests yet."""
        if not self._watchers:
            return
        gathered = self._gathered
        gathered.last_steps[index] = step
        gathered.steps.append((step.started_s, step.ended_s - step.started_s, step.num_prompt, step.num_output))
        for update in step.updates:
            tracked = requests.get(update.key)
            if tracked is None or not (update.token_ids or update.finish_reason is None):
                continue
            last_s = tracked.times.last_token_s
            if last_s is None:
                gathered.first_tokens.append(step.ended_s - tracked.times.arrival_s)
            else:
                gathered.gaps.append(step.ended_s - last_s)

    def over(self, tracked: Tracked) -> None:
        """A request has ended."""
        if self._watchers:
            self._gathered.over.append(tracked)

    def blocks(self, index: int, picture: Blocks) -> None:
        """A picture of an engine's KV blocks has come."""
        self._gathered.pictures[index] = picture
        self._quiet_until_s = 0.0

    def watch(self) -> asyncio.Queue[bytes | None]:
        """Begin to watch. Returns: events as they come; None: the end."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(2)
        self._watchers.add(queue)
        self._quiet_until_s = 0.0
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
        interval_s = self._serving.settings.watch_interval
        was_quiet = False
        while self._watchers:
            before_s, spent_s = time.monotonic(), time.thread_time()
            is_quiet = not (self._serving.client.requests or self._gathered.has_news())
            # The first quiet event is told at once: it says that all is over.
            if not is_quiet or not was_quiet or before_s >= self._quiet_until_s:
                self._tell(msgspec.json.encode(make_event(self._serving, self._gathered)))
                self._quiet_until_s = before_s + QUIET_S
            was_quiet = is_quiet
            await asyncio.sleep(max(interval_s, (time.thread_time() - spent_s) * EVENT_SHARE))
        self._serving.client.watch(None)
        self._gathered.clear()
        self._task = None

    def _tell(self, event: bytes) -> None:
        for queue in self._watchers:
            if not queue.full():
                queue.put_nowait(event)
