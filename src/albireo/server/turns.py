"""Whose turn it is, where several models share a memory that holds some of them: who waits longest is next.

Used by several.py. Does not know HTTP, nor how a model is put to sleep and started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Protocol

from albireo.errors import EngineError

_LOG = logging.getLogger("albireo.server")

#: Seconds between looks whether a model rests whose work no request waits at.
_LOOK_S = 0.05


class Sleeper(Protocol):
    """A model that can be put to sleep.

    Attributes:
        num_inside: requests that have its turn.
        used_s: when the last of them was over.
        woken_s: when it was started last.
    """

    num_inside: int
    used_s: float
    woken_s: float

    @property
    def name(self) -> str:
        """What the log calls it."""

    @property
    def takes_memory(self) -> bool:
        """Whether it has processes, or will by itself."""

    @property
    def is_ready(self) -> bool:
        """Whether it can be given a request now."""

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody wants anything of it."""

    async def check(self) -> None:
        """Without memory. Raises: EngineError when it is known already that it cannot be started."""

    async def start(self) -> None:
        """Until it can be given requests. Raises: EngineError when it cannot be started."""

    async def sleep(self) -> None:
        """Until its memory is given back. Raises: EngineError while it has work to do."""


class Waiter:
    """A request for a model. Attributes: turn: done when it has the model: with None, or why it cannot have it."""

    def __init__(self, model: Sleeper) -> None:
        self.model = model
        self.since_s = time.monotonic()
        self.turn: asyncio.Future[EngineError | None] = asyncio.get_running_loop().create_future()

    @property
    def has_turn(self) -> bool:
        """Whether the model may not be put to sleep, because of this request."""
        return self.turn.done() and self.turn.result() is None


class Turns:
    """Invariants: 1. at most max_awake models take memory; 2. none that has work to do is put to sleep; 3. a request
    waits for those before it, the work that runs, and switch_after seconds for each model between: no longer."""

    def __init__(self, models: Sequence[Sleeper], max_awake: int, switch_after: float) -> None:
        self._models, self._max_awake, self._switch_after = models, max_awake, switch_after
        self._waiting: list[Waiter] = []
        self._news = asyncio.Event()
        #: Those that get no new requests: it is to make room; it is being started.
        self._leaving: Sleeper | None = None
        self._starting: Sleeper | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def num_waiting(self) -> int:
        """Requests whose models are not there."""
        return len(self._waiting)

    def num_waiting_for(self, model: Sleeper) -> int:
        """Of them, those for one model."""
        return sum(each.model is model for each in self._waiting)

    def ask(self, model: Sleeper) -> Waiter:
        """Have a model, now or in a while; withdraw() ends it."""
        waiter = Waiter(model)
        if model.is_ready and model is not self._leaving and model is not self._starting:
            self._grant(waiter)
        else:
            self._waiting.append(waiter)
            if self._running is None:
                self._running = asyncio.create_task(self._run())
            self._news.set()
        return waiter

    def withdraw(self, waiter: Waiter) -> None:
        """The request is over, whether it had its turn or not. To be called once."""
        if waiter.has_turn:
            waiter.model.num_inside -= 1
            waiter.model.used_s = time.monotonic()
        elif waiter in self._waiting:
            self._waiting.remove(waiter)
        self._news.set()

    def close(self, reason: str) -> None:
        """No model is started any more, and nobody waits."""
        if self._running is not None:
            self._running.cancel()
        while self._waiting:
            self._waiting.pop().turn.set_result(EngineError(reason))

    def _grant(self, waiter: Waiter) -> None:
        waiter.model.num_inside += 1
        waiter.turn.set_result(None)

    async def _run(self) -> None:
        """The models that are waited for, one after another."""
        while True:
            self._news.clear()
            if not self._waiting:
                self._leaving = None
                await self._news.wait()
                continue
            head = self._waiting[0]
            if not head.model.takes_memory:
                if not await self._is_sound(head.model) or head not in self._waiting[:1]:
                    continue  # nobody is put to sleep for one that cannot be started, or that nobody wants any more
                if not await self._has_room(head):
                    continue
            self._leaving = None
            await self._start(head.model)

    async def _is_sound(self, model: Sleeper) -> bool:
        try:
            await model.check()
        except Exception as error:
            self._answer(model, _told(error))
            return False
        return True

    async def _has_room(self, head: Waiter) -> bool:
        """Whether one more may be started. If not, one that rests is put to sleep, or waited for."""
        awake = [each for each in self._models if each.takes_memory]
        if len(awake) < self._max_awake:
            return True
        resting = [each for each in awake if each.is_at_rest]
        if resting:
            self._leaving = min(resting, key=lambda each: each.used_s)
            await self._send_to_sleep(self._leaving)
            return False
        # All are busy. The one that was woken first finishes what it has, once it had its time.
        oldest = min(awake, key=lambda each: each.woken_s)
        is_due = time.monotonic() - max(head.since_s, oldest.woken_s) >= self._switch_after
        self._leaving = oldest if is_due else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _LOOK_S)
        return False

    async def _send_to_sleep(self, model: Sleeper) -> None:
        try:
            await model.sleep()
        except EngineError as error:
            _LOG.warning("%s does not sleep: %s", model.name, error)
            await asyncio.sleep(_LOOK_S)

    async def _start(self, model: Sleeper) -> None:
        """Start a model, unless it is there, for all that wait for it."""
        self._starting, error = model, None
        try:
            for each in self._models:
                if each is not model and not each.takes_memory:
                    await each.sleep()  # it may have fallen asleep by itself, and not be gone yet
            await model.start()
        except Exception as refusal:
            error = _told(refusal)
        finally:
            self._starting = None
        self._answer(model, error)

    def _answer(self, model: Sleeper, error: EngineError | None) -> None:
        """All that wait for a model have it, or are told why not."""
        if error is not None:
            _LOG.error("%s cannot be started: %s", model.name, error)
        asked = [each for each in self._waiting if each.model is model]
        self._waiting = [each for each in self._waiting if each.model is not model]
        for waiter in asked:
            if error is None:
                self._grant(waiter)
            else:
                waiter.turn.set_result(error)


def _told(error: Exception) -> EngineError:
    """What is said of an error; what nobody foresaw is in the log alone."""
    if isinstance(error, EngineError):
        return error
    _LOG.error("a model was not started", exc_info=error)
    return EngineError("an internal error")
