"""What the engine process has been told and not done yet: messages of the client, results of its own threads.

Read by worker.py between two steps. Does not know what a message means.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque

import msgspec

from albireo.engine_process.adapter_reader import AdapterRead
from albireo.engine_process.grammars import Compiled
from albireo.engine_process.messages import Frames, ToWorker

_LOG = logging.getLogger(__name__)
_RECEIVE_BYTES = 1 << 20


class Inbox:
    """Messages from the client, read by a thread of their own, so that a step never waits for the socket; between them
    what other threads of this process have done."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._changed = threading.Condition()
        self._messages: deque[ToWorker | Compiled | AdapterRead] = deque()
        self._is_closed = False
        self._decoder = msgspec.msgpack.Decoder(ToWorker)
        threading.Thread(target=self._read, name="albireo-inbox", daemon=True).start()

    def wait(self) -> ToWorker | Compiled | AdapterRead | None:
        """The next message; None when the client is gone."""
        with self._changed:
            while not (self._messages or self._is_closed):
                self._changed.wait()
            return None if self._is_closed else self._messages.popleft()

    def take(self) -> list[ToWorker | Compiled | AdapterRead] | None:
        """What has come, without waiting; None when the client is gone."""
        if self._is_closed:
            return None
        taken = []
        while self._messages:  # nobody else takes from it
            taken.append(self._messages.popleft())
        return taken

    def put(self, message: Compiled | AdapterRead) -> None:
        """From another thread of this process."""
        with self._changed:
            self._messages.append(message)
            self._changed.notify()

    def _read(self) -> None:
        frames = Frames()
        try:
            while data := self._connection.recv(_RECEIVE_BYTES):
                messages = [self._decoder.decode(payload) for payload in frames.feed(data)]
                with self._changed:
                    self._messages.extend(messages)
                    self._changed.notify()
        except OSError:
            pass
        except Exception:  # nobody would be listening any more: the client starts another process
            _LOG.exception("the engine process ends: a message to it cannot be read")
        with self._changed:
            self._is_closed = True
            self._changed.notify()
