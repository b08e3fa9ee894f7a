"""The link to an engine process on a node of a Ray cluster, through an actor there (engine_actor.py).

Made for engine_process/client.py, which decides what an end means. Does not know messages, but for one that it makes.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from albireo import __version__
from albireo.distributed.engine_actor import MAX_CALL_BYTES, EngineActor
from albireo.distributed.placement import Seat
from albireo.engine_process.messages import Failed, Frames, Message, frame, payload_of

#: What the end of an actor counts as, of which no exit status is known: hardly a request's doing, since that runs in
#: the process beside it.
LOST = -signal.SIGKILL


class RayLink:
    """One run of an engine process in one actor. Invariant: on_end is called once, after the last payload."""

    pid = None

    def __init__(
        self,
        seat: Seat,
        command: tuple[str, ...],
        on_payload: Callable[[bytes], None],
        on_end: Callable[[int, list[int]], None],
    ) -> None:
        self._seat, self._command = seat, command
        self._on_payload, self._on_end = on_payload, on_end
        self._actor: Any = None
        self._unsent = bytearray()
        self._has_unsent = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Make the actor, and wait until the process runs. An actor waits for a node that has room for it."""
        seat = self._seat
        # Elsewhere when that node is gone, if another one has room.
        affinity = NodeAffinitySchedulingStrategy(seat.node.name, soft=True)
        options = {"num_cpus": seat.num_cpus, "num_gpus": seat.num_gpus, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(EngineActor).options(**options, scheduling_strategy=affinity).remote(self._command)
        try:
            version = await self._actor.start.remote()
        except RayError:
            self._end(LOST, [])
            return
        if version != __version__:
            words = f"albireo {version} is installed on {seat.node.address}, {__version__} here; install the same"
            self._on_payload(payload_of(Failed("ConfigError", words)))
            self.kill()
        self._tasks = [self._running(self._send_all()), self._running(self._receive_all())]

    def send(self, message: Message) -> None:
        """Tell the process; what it no longer hears is lost."""
        if not self._has_ended.is_set():
            self._unsent += frame(message)
            self._has_unsent.set()

    def kill(self) -> None:
        """End the actor, and with it the process; on_end follows."""
        if self._actor is not None:
            ray.kill(self._actor)

    async def ended(self) -> None:
        """Wait for its end."""
        if self._tasks:
            await self._has_ended.wait()

    async def _send_all(self) -> None:
        while True:
            await self._has_unsent.wait()
            data = bytes(self._unsent[:MAX_CALL_BYTES])
            del self._unsent[:MAX_CALL_BYTES]
            if not self._unsent:
                self._has_unsent.clear()
            await self._actor.send.remote(data)

    async def _receive_all(self) -> None:
        frames, end = Frames(), None
        while end is None:
            data, end = await self._actor.receive.remote()
            for payload in frames.feed(data):
                self._on_payload(payload)
        ray.kill(self._actor)
        self._end(*end)

    def _running(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except RayError:
                self._end(LOST, [])

        return asyncio.create_task(guarded())

    def _end(self, status: int, tickets: list[int]) -> None:
        if self._has_ended.is_set():
            return
        self._has_ended.set()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._on_end(status, tickets)
