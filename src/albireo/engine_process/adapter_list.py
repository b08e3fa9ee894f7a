"""AdapterList: the adapters that the client has had loaded, so that every engine process gets them.

Used by client.py. Does not know requests, nor what adapters are called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from albireo import errors
from albireo.engine_process.messages import AdapterLoaded, DropAdapter, LoadAdapter
from albireo.errors import EngineError, ModelError


@dataclass(slots=True)
class _Entry:
    """loaded: None while it is read for the first time."""

    path: str
    waiting: asyncio.Future[AdapterLoaded]
    loaded: AdapterLoaded | None = None


class AdapterList:
    """Invariant: a number is given once, whatever becomes of its adapter."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._last = 0
        self._leaving: set[int] = set()

    @property
    def is_reading(self) -> bool:
        """Whether one is read for the first time."""
        return any(entry.loaded is None for entry in self._entries.values())

    def begin(self, path: str) -> tuple[LoadAdapter, asyncio.Future[AdapterLoaded]]:
        """What to tell the process to have an adapter loaded, and what it will answer."""
        self._last += 1
        entry = _Entry(path, asyncio.get_running_loop().create_future())
        self._entries[self._last] = entry
        return LoadAdapter(self._last, path), entry.waiting

    def answered(self, message: AdapterLoaded) -> EngineError | None:
        """The process says what became of one. Returns: why one that was there before is not there any more."""
        entry = self._entries.get(message.number)
        if entry is None:
            return None
        if message.error is None:
            entry.loaded = message
            if not entry.waiting.done():
                entry.waiting.set_result(message)
            return None
        kind = getattr(errors, message.error, ModelError)
        error: EngineError = kind(message.message)
        if entry.loaded is not None:
            return error
        del self._entries[message.number]
        if not entry.waiting.done():
            entry.waiting.set_exception(error)
        return None

    def leave(self, number: int) -> None:
        """No new request will have it. Until those that have it are over, the next process would need it, too."""
        self._leaving.add(number)

    def drop(self, in_use: Callable[[], set[int | None]]) -> list[DropAdapter]:
        """Forget those that leave and no request has. Returns: what to tell the process."""
        if not self._leaving:
            return []
        gone = self._leaving - in_use()
        self._leaving -= gone
        for number in gone:
            self._entries.pop(number, None)
        return [DropAdapter(number) for number in gone]

    def died(self) -> None:
        """The process is gone: what was being read for the first time may be to blame, and is not read again."""
        for number, entry in list(self._entries.items()):
            if entry.loaded is None:
                del self._entries[number]
                if not entry.waiting.done():
                    entry.waiting.set_exception(
                        EngineError("the engine process ended while the adapter was loaded; load it again")
                    )

    def again(self) -> Iterator[LoadAdapter]:
        """What to tell the next process, before its requests."""
        for number, entry in self._entries.items():
            if entry.loaded is not None:
                yield LoadAdapter(number, entry.path, entry.loaded.digest)
