"""Adapters that the client names, read beside the steps: a large one, or one that is damaged, holds up no stream.

Used by worker.py. Does not know requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from albireo.api.adapters import Adapters, no_adapters
from albireo.engine_process.messages import AdapterLoaded, DropAdapter, LoadAdapter
from albireo.errors import EngineError, InvariantError, ModelError
from albireo.models.checkpoint.peft import PeftAdapter

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AdapterRead:
    """What became of the reading of an adapter."""

    number: int
    result: PeftAdapter | EngineError


class AdapterReader:
    """Invariant: every LoadAdapter is answered once."""

    def __init__(
        self,
        adapters: Adapters | None,
        on_read: Callable[[AdapterRead], None],
        tell: Callable[[AdapterLoaded], None],
    ) -> None:
        """Args: adapters: None where there are none. on_read: told on another thread; to be given to take()."""
        self._adapters = adapters
        self._on_read = on_read
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, "albireo-adapter")

    def load(self, message: LoadAdapter) -> None:
        """Read one; one that was read before, by another process, at once: requests that have it follow."""
        if message.digest is None:
            self._thread.submit(lambda: self._on_read(self._read(message)))
        else:
            self.take(self._read(message))

    def take(self, read: AdapterRead) -> None:
        """Let requests have it. Between steps."""
        result = read.result
        if isinstance(result, EngineError):
            self._tell(AdapterLoaded(read.number, type(result).__name__, str(result)))
            return
        assert self._adapters is not None, "it was read"
        self._adapters.add(result, read.number)
        self._adapters.compile()
        self._tell(AdapterLoaded(read.number, rank=result.rank, num_bytes=result.num_bytes, digest=result.digest))

    def drop(self, message: DropAdapter) -> None:
        """Let it go when nobody has it any more. Between steps."""
        if self._adapters is not None:
            self._adapters.remove(message.number)

    def knows(self, number: int | None) -> bool:
        """Whether a request may have it."""
        return number is None or (self._adapters is not None and number in self._adapters.runner.numbers)

    def let_go(self, in_use: Callable[[], set[int]]) -> None:
        """Forget what was dropped and nobody has. Between steps."""
        if self._adapters is not None and self._adapters.has_leaving:
            self._adapters.let_go(in_use())

    def _read(self, message: LoadAdapter) -> AdapterRead:
        try:
            if self._adapters is None:
                raise no_adapters()
            found = self._adapters.read(message.path)
            if message.digest not in (None, found.digest):
                raise ModelError(f"{message.path}: is not what it was when it was loaded; load it under another name")
            return AdapterRead(message.number, found)
        except EngineError as error:
            return AdapterRead(message.number, error)
        except Exception as error:
            _LOG.error("an adapter could not be read", exc_info=error)
            return AdapterRead(message.number, InvariantError(f"reading it failed: {type(error).__name__}"))
