"""An engine on a node of a Ray cluster: an actor that starts the engine process beside it and passes on what both say.

Made by ray_link.py, whose other end it is. Bytes go through as they are, in calls so small that Ray keeps them in
messages: no prompt comes to lie in its object store, which may be written to disk. Does not know what they mean.
"""

from __future__ import annotations

import asyncio

from albireo import __version__
from albireo.engine_process.messages import framed
from albireo.engine_process.process import EngineProcess
from albireo.engine_process.spawned import COMMAND

#: Most bytes of one call or answer; Ray puts what is above 100 KiB into its object store.
MAX_CALL_BYTES = 64 << 10


class EngineActor:
    """One run of one engine process. Invariant: it ends with the actor, whose socket it holds."""

    def __init__(self, command: tuple[str, ...]) -> None:
        """Args: command: starts an engine process here; empty: this interpreter's."""
        self._process = EngineProcess(self._received, self._ended, command or COMMAND)
        self._said = bytearray()
        self._end: tuple[int, list[int]] | None = None
        self._news = asyncio.Event()

    async def start(self) -> str:
        """Start the process. Returns: the version of this package, which has to be the caller's."""
        await self._process.start()
        return __version__

    async def send(self, data: bytes) -> None:
        """Bytes for the process; one call at a time, so that they stay in order."""
        self._process.write(data)

    async def receive(self) -> tuple[bytes, tuple[int, list[int]] | None]:
        """Wait for news. Returns: frames of the process, cut anywhere; and, after the last of them, its exit status
        with the tickets of the requests that were being computed."""
        while not self._said and self._end is None:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._said[:MAX_CALL_BYTES])
        del self._said[:MAX_CALL_BYTES]
        return data, None if self._said else self._end

    def _received(self, payload: bytes) -> None:
        self._said += framed(payload)
        self._news.set()

    def _ended(self, status: int, tickets: list[int]) -> None:
        self._end = status, tickets
        self._news.set()
