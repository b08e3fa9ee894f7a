"""One run of the engine process: its socket, its ledger, its beginning and its end.

Made by replicas/place.py and distributed/engine_actor.py for client.py, which decides what an end means. Does not know
requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Sequence

from albireo.engine_process import ledger
from albireo.engine_process.messages import Frames, Message, frame
from albireo.engine_process.spawned import COMMAND, Spawned
from albireo.process_limits import shortage_of
from albireo.system import peer_of


class EngineProcess:
    """Invariants: 1. on_end is called once, after the last payload; 2. only the process started here is listened to,
    over a socket in a directory that only this user can enter.
    """

    def __init__(
        self,
        on_payload: Callable[[bytes], None],
        on_end: Callable[[int, list[int]], None],
        command: Sequence[str] = COMMAND,
        spawned: Spawned | None = None,
    ) -> None:
        """Args:
        on_end: called with the exit status (negative: the signal) and the keys that were being computed.
        command: what is run. spawned: it runs already, and is taken over.
        """
        self._command = tuple(command)
        self._on_payload = on_payload
        self._on_end = on_end
        self._spawned = spawned
        self._transport: asyncio.WriteTransport | None = None
        self._closed = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, once it was started."""
        return None if self._spawned is None else self._spawned.process.pid

    async def start(self) -> None:
        """Start the process and wait until it has connected. When it ends before, on_end is called.

        Raises: OSError when there is none; on_end is not called then.
        """
        spawned = self._spawned = self._spawned or Spawned(self._command)
        connected = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            status = _status(spawned)
        except RuntimeError as error:  # no thread can be started
            spawned.end()
            raise OSError(str(shortage_of(error) or error)) from None
        self._ending = asyncio.create_task(self._wait_for_end(spawned, status, connected))
        server = await loop.create_unix_server(lambda: _Link(self, connected), sock=spawned.listening)
        try:
            await connected.wait()
        finally:
            server.close()

    def send(self, message: Message) -> None:
        """Tell the process; what it no longer hears is lost."""
        self.write(frame(message))

    def write(self, frames: bytes) -> None:
        """As send(), for messages that are bytes already, cut anywhere."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frames)

    def kill(self) -> None:
        """End it now; on_end follows."""
        if self._spawned is not None:
            self._spawned.process.kill()

    async def ended(self) -> None:
        """Wait for its end."""
        if self._ending is not None:
            await self._ending

    def is_own(self, transport: asyncio.BaseTransport) -> bool:
        """Whether the other end of a connection is the process started here."""
        pid, uid = peer_of(transport.get_extra_info("socket"))
        return bool(pid == self.pid and uid == os.getuid())

    async def _wait_for_end(self, spawned: Spawned, ended: asyncio.Future[int], connected: asyncio.Event) -> None:
        status = await ended
        if self._transport is not None:
            await self._closed.wait()  # what it sent before its end is still to be read
        keys = ledger.read(spawned.notes)
        spawned.clear()
        connected.set()
        self._on_end(status, keys)

    # -- from the link -------------------------------------------------------------------------------------------------

    def opened(self, transport: asyncio.WriteTransport) -> None:
        """The process has connected."""
        self._transport = transport

    def received(self, payload: bytes) -> None:
        """It says something."""
        self._on_payload(payload)

    def closed(self) -> None:
        """It says nothing more; what is left of it has to go."""
        self._closed.set()
        self.kill()


class _Link(asyncio.Protocol):
    def __init__(self, process: EngineProcess, connected: asyncio.Event) -> None:
        self._process = process
        self._connected = connected
        self._frames = Frames()
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        if self._connected.is_set() or not self._process.is_own(transport):
            transport.close()
            return
        self._is_open = True
        self._process.opened(transport)  # type: ignore[arg-type]  # uvloop's transports derive from the base only
        self._connected.set()

    def data_received(self, data: bytes) -> None:
        for payload in self._frames.feed(data):
            self._process.received(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._is_open:
            self._process.closed()


def _status(spawned: Spawned) -> asyncio.Future[int]:
    """Of a process, once it has ended. In a thread: it may have been started before there was an event loop.

    Raises: RuntimeError where none can be started.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[int] = loop.create_future()

    def tell(status: int) -> None:
        if not found.done():
            found.set_result(status)

    def wait() -> None:
        status = spawned.process.wait()
        with contextlib.suppress(RuntimeError):  # nobody is there any more to be told
            loop.call_soon_threadsafe(tell, status)

    threading.Thread(target=wait, name="albireo-engine-end", daemon=True).start()
    return found
