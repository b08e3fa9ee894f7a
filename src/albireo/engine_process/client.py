"""One engine as replicas/ sees it: give it requests, read what they bring; the process behind it may die and return.

Called by replicas, on one event loop. Knows the whole of every request it was given (tracked.py), so that after a death
the next process, or another engine, goes on with each from its tokens. Does not know HTTP, nor that there are others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

import msgspec

from albireo import errors
from albireo.api.machine.share import ALONE, Share
from albireo.engine_process.adapter_list import AdapterList
from albireo.engine_process.blame import guilty, is_suspect, may_move
from albireo.engine_process.link import EngineLink, Launch
from albireo.engine_process.messages import (
    Abort,
    AdapterLoaded,
    Blocks,
    Failed,
    Finish,
    ForgetPrefixes,
    FromWorker,
    Loading,
    PrefixesForgotten,
    Ready,
    Refused,
    Start,
    Stepped,
    Watch,
)
from albireo.engine_process.model_files import told
from albireo.engine_process.recovery import Recovery
from albireo.engine_process.retries import Retries
from albireo.engine_process.tracked import SHUTTING_DOWN, Tracked
from albireo.errors import ConfigError, EngineError, RequestError
from albireo.process_limits import shortage_of

_LOG = logging.getLogger(__name__)

State = Literal["loading", "ready", "asleep", "waking", "restarting", "failed", "closed"]


@dataclass(slots=True)
class Health:
    """How the engine process is.

    Fields:
        state: restarting: requests are accepted and wait for the next process. asleep: there is none, until a request
            comes; waking: it loads.
        loaded_frac: of the weights, while it loads.
        last_step_s: when it last proved to be alive; monotonic clock.
        failure: why it will not run any more.
    """

    state: State = "loading"
    loaded_frac: float = 0.0
    last_step_s: float = field(default_factory=time.monotonic)
    num_restarts: int = 0
    failure: EngineError | None = None


class EngineClient:
    """Invariants: 1. every request that take() was given ends or is released, exactly once; 2. its tokens are those
    that it would have had in a process that never died.

    Attributes:
        ready: what the engine process said when it had loaded; None before.
        requests: those that are not over, by ticket, in order of arrival.
        num_sequences, num_pending: of all of them, continuations that go on and Tracked.num_pending.
        name: what the log calls it.
    """

    def __init__(
        self,
        engine: Mapping[str, Any],
        launch: Launch,
        share: Share = ALONE,
        *,
        name: str = "the engine process",
        is_alone: bool = True,
        on_step: Callable[[Stepped], None] = lambda _: None,
        on_blocks: Callable[[Blocks], None] = lambda _: None,
        on_over: Callable[[Tracked], None] = lambda _: None,
        on_change: Callable[[], None] = lambda: None,
        held: Callable[[], Iterable[Tracked]] = tuple,
    ) -> None:
        """Args:
        engine: fields of EngineConfig.
        launch: makes what an engine process is reached by.
        share: of the machine, that it may take.
        name: what the log calls it.
        is_alone: nobody goes on without it, so that one which cannot be loaded is told by who waits for it.
        on_over: a request is over; called before its reader is.
        on_change: it is ready, or not any more. What is released then is not waited for by the next process.
        held: requests that are to be taken later: their adapters are kept.
        """
        self.health = Health()
        self.ready: Ready | None = None
        self.requests: dict[int, Tracked] = {}
        self.num_sequences = self.num_pending = 0
        self.name, self._is_alone = name, is_alone
        self._engine, self._launch, self._share = dict(engine), launch, share
        self._on_step, self._on_blocks, self._on_over, self._on_change = on_step, on_blocks, on_over, on_change
        self._held = held
        self._decoder = msgspec.msgpack.Decoder(FromWorker)
        self._process: EngineLink | None = None
        self._starting: asyncio.Task[None] | None = None
        self._retries = Retries()
        self._busy_since_s = self._rest_since_s = 0.0
        self._recovery = Recovery()
        self._is_recovering = self._is_leaving = False
        self._adapters = AdapterList()
        self._forgetting: list[asyncio.Future[bool]] = []
        self._watch_s: float | None = None
        self._status = 0

    # -- its life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load, in the background."""
        self._starting = asyncio.create_task(self._start(0.0))

    async def close(self) -> None:
        """End the process and every request."""
        self.health.state = "closed"
        if self._starting is not None:
            self._starting.cancel()
        if self._process is not None:
            self._process.kill()
            await self._process.ended()
        for tracked in list(self.requests.values()):
            self._end(tracked, SHUTTING_DOWN)

    @property
    def _is_over(self) -> bool:
        """Whether there is to be no process any more."""
        return self.health.state in ("closed", "failed")

    @property
    def is_at_rest(self) -> bool:
        """Whether it loaded and has nothing to do."""
        return self.health.state == "ready" and not self.requests and not self._adapters.is_reading

    def rest_s(self) -> float:
        """Seconds that it has been at rest; 0 when it is not."""
        return time.monotonic() - self._rest_since_s if self.is_at_rest else 0.0

    async def sleep(self) -> None:
        """End the process, whose memory others may have until a request comes. Returns once it is given back.

        Raises: EngineError unless it is at rest, or asleep.
        """
        if self.health.state != "asleep":
            if not self.is_at_rest:
                raise EngineError(f"{self.name} has work to do, or is being started")
            self._fall_asleep()
        if self._process is not None:
            await self._process.ended()

    def wake(self) -> None:
        """Begin to load again, in the background, if it is asleep."""
        if self.health.state == "asleep":
            self.health.state, self.health.loaded_frac = "waking", 0.0
            self._on_change()
            if not self._is_leaving:  # else once it is gone: it has what the next one needs
                self._starting = asyncio.create_task(self._start(0.0))

    def _fall_asleep(self) -> None:
        self.health.state, self._is_leaving = "asleep", self._process is not None
        if self._process is not None:
            self._process.kill()
        self._on_change()

    def _has_left(self) -> None:
        """The process was told to end, and has."""
        self._is_leaving, self._status = False, 0
        if self.health.state == "waking":
            self._starting = asyncio.create_task(self._start(0.0))

    # -- requests ------------------------------------------------------------------------------------------------------

    def take(self, tracked: Tracked) -> None:
        """Run a request, or go on with one; without a process it waits for the next one, and wakes what is asleep."""
        if not self.requests:
            self._busy_since_s = time.monotonic()
        self.requests[tracked.ticket] = tracked
        self._count(tracked, 1)
        if self.health.state == "ready" and self._process is not None:
            self._process.send(tracked.add_message())
        self.wake()

    def release(self, tracked: Tracked) -> None:
        """Nothing more comes of it here: its reader is gone, or another engine takes it. Safe when it is over."""
        if self._forget(tracked.ticket) is None:
            return
        self._rest_since_s = time.monotonic()
        if self._is_recovering:
            self._recovery.note_lost_time(tracked)
        elif self.health.state == "ready" and self._process is not None:
            self._process.send(Abort(tracked.ticket))
        self.drop_adapters()
        self._moved_on(tracked.ticket)

    def _forget(self, ticket: int) -> Tracked | None:
        """What is not over yet, and is not to be here any more; None where it is not."""
        tracked = self.requests.pop(ticket, None)
        if tracked is not None:
            self._count(tracked, -1)
        return tracked

    def _count(self, tracked: Tracked, sign: int) -> None:
        self.num_sequences += sign * (len(tracked.continuations) - tracked.num_ended)
        self.num_pending += sign * tracked.num_pending

    def may_move(self, tracked: Tracked) -> bool:
        """Whether another engine may go on with a request that waits here for the next process."""
        return not is_suspect(tracked) if self.health.failure is not None else may_move(tracked, self._status)

    def fail(self, error: EngineError) -> None:
        """It is not to run any more."""
        if self._process is not None:
            self._process.kill()
        self._fail(error)

    async def load_adapter(self, path: str) -> AdapterLoaded:
        """Have an adapter read, from now on by every process. Raises: EngineError when it cannot be."""
        if self.health.state != "ready" or self._process is None:
            self.wake()
            raise EngineError("the engine process is being started; load the adapter when it is there")
        message, answer = self._adapters.begin(path)
        self._process.send(message)
        return await answer

    def drop_adapter(self, number: int) -> None:
        """No new request will have it; those that run go on with it, and it goes with the last of them."""
        self._adapters.leave(number)
        self.drop_adapters()

    def drop_adapters(self) -> None:
        """Those that leave and no request has: to be called when one that is held is over."""
        for message in self._adapters.drop(self._adapters_in_use):
            if self._process is not None:
                self._process.send(message)

    def _adapters_in_use(self) -> set[int | None]:
        return {each.submission.adapter for each in chain(self.requests.values(), self._held())}

    async def forget_prefixes(self, with_files: bool) -> None:
        """Have no prompt that comes later find anything of what was computed before. Returns once it is so; without a
        process nothing is known. Args: with_files: what is kept in files goes, too.

        Raises: EngineError with files, when there is no process to remove them.
        """
        is_done = False
        if self.health.state == "ready" and self._process is not None:
            waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._forgetting.append(waiting)
            self._process.send(ForgetPrefixes(with_files))
            is_done = await waiting
        if with_files and not is_done:
            raise EngineError(f"{self.name} does not run, so that files stay; ask again when it does")

    def _has_forgotten(self, is_done: bool) -> None:
        """The process did what it was told to longest ago; or it is gone, and did none of it."""
        told, self._forgetting = (self._forgetting[:1], self._forgetting[1:]) if is_done else (self._forgetting, [])
        for waiting in told:
            if not waiting.done():
                waiting.set_result(is_done)

    def idle_s(self) -> float:
        """Seconds since the last step, with work to do and a process to do it; 0 when there is none of either."""
        if not self.requests or self.health.state != "ready":
            return 0.0
        return time.monotonic() - max(self.health.last_step_s, self._busy_since_s)

    @property
    def pid(self) -> int | None:
        """Of the engine process, once there is one on this machine."""
        return None if self._process is None else self._process.pid

    def watch(self, interval_s: float | None) -> None:
        """Have on_blocks called at this interval; None: no more."""
        self._watch_s = interval_s
        if self._process is not None:
            self._process.send(Watch(interval_s))

    # -- the process ---------------------------------------------------------------------------------------------------

    async def _start(self, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        if self._is_over:
            return
        try:
            process = self._process = self._launch(self._receive, self._ended)
            await process.start()
        except OSError as error:  # no room for its files, no further process, no descriptor
            self._process = None
            self._fail(EngineError(f"{self.name} cannot be started: {shortage_of(error) or error}"))
            return
        process.send(Start(self._engine, self._share))

    def _ended(self, status: int, keys: list[int]) -> None:
        """The process is gone."""
        self._process = None
        self._has_forgotten(False)
        self._adapters.died()
        if self._is_over:
            return
        if self._is_leaving:
            self._has_left()
            return
        self._status, self._is_recovering = status, True
        self._recovery.died()
        for tracked in guilty((self.requests[key] for key in keys if key in self.requests), status):
            _LOG.error("request %s ended %s %d times", tracked.request_id, self.name, tracked.strikes.num)
            self._end(tracked, f"the request ended the engine process {tracked.strikes.num} times and is not run again")
            self._retries.mended()
        pause_s = self._retries.died(status, was_ready=self.health.state == "ready")
        if pause_s is None:
            self._fail(EngineError(f"{self.name} ended again and again, last {_words(status)}"))
            return
        self.health.num_restarts += 1
        self.health.state = "loading" if self.ready is None else "restarting"
        self.health.loaded_frac = 0.0
        self._on_change()
        words = "%s ended %s; it is started again, with %d requests"
        _LOG.warning(words, self.name, _words(status), len(self.requests))
        self._starting = asyncio.create_task(self._start(pause_s))

    def _fail(self, error: EngineError) -> None:
        if self.health.state == "waking":
            # It ran before: what others took since, they may give back. The next request tries again.
            _LOG.error("%s cannot be started now, and stays asleep: %s", self.name, error)
            self._fall_asleep()
            for tracked in list(self.requests.values()):
                self._forget(tracked.ticket)
                tracked.fail(EngineError(f"{self.name} was asleep and could not be started"))
                self._on_over(tracked)
            return
        self.health.state, self.health.failure = "failed", error
        if self.ready is not None or not self._is_alone:
            _LOG.error("%s will not run any more: %s", self.name, error)
        self._on_change()
        for tracked in list(self.requests.values()):
            self._end(tracked, "the engine does not run any more")

    def _end(self, tracked: Tracked, reason: str) -> None:
        self._forget(tracked.ticket)
        tracked.end_all("error", reason)
        self._on_over(tracked)
        self.drop_adapters()

    # -- messages ------------------------------------------------------------------------------------------------------

    def _receive(self, payload: bytes) -> None:
        message = self._decoder.decode(payload)
        if self._is_over and isinstance(message, Ready | Failed):
            return  # it was on its way as the process was told to end, and would bring it back
        if isinstance(message, Stepped):
            self._stepped(message)
        elif isinstance(message, Ready):
            self._is_ready(message)
        elif isinstance(message, Refused):
            self._refused(message)
        elif isinstance(message, AdapterLoaded):
            error = self._adapters.answered(message)
            if error is not None:
                _LOG.error("adapter %d is not there any more: %s", message.number, error)
        elif isinstance(message, PrefixesForgotten):
            self._has_forgotten(True)
        elif isinstance(message, Blocks):
            self._on_blocks(message)
        elif isinstance(message, Loading):
            self.health.loaded_frac = message.fraction
        elif isinstance(message, Failed):
            self._fail(_error(message.error, message.message, ConfigError))

    def _is_ready(self, ready: Ready) -> None:
        if self.ready is not None and (words := told(self.ready.files, ready.files)) is not None:
            _LOG.warning("%s: %s", self.name, words)
        self.ready = ready
        self.health.state, self.health.loaded_frac = "ready", 1.0
        self.health.last_step_s = self._rest_since_s = time.monotonic()
        assert self._process is not None, "it speaks"
        for message in self._adapters.again():
            self._process.send(message)
        if self._is_recovering:
            self._is_recovering = False
            self._recovery.resume(self._process, self.requests.values())
        else:
            for tracked in self.requests.values():
                self._process.send(tracked.add_message())
        if self._watch_s is not None:
            self._process.send(Watch(self._watch_s))
        self._on_change()

    def _stepped(self, step: Stepped) -> None:
        self.health.last_step_s = step.ended_s
        self._rest_since_s = time.monotonic()
        self._retries.mended()
        self._on_step(step)
        for update in step.updates:
            tracked = self.requests.get(update.key)
            if tracked is None:
                continue
            self._count(tracked, -1)
            has_stopped = tracked.take(update, step.ended_s)
            self._count(tracked, 1)
            if has_stopped and self._process is not None:
                self._process.send(Finish(update.key, update.index))
            if tracked.is_over:
                self._forget(update.key)
                self._on_over(tracked)
                self.drop_adapters()
            self._moved_on(update.key)

    def _refused(self, refused: Refused) -> None:
        tracked = self._forget(refused.key)
        if tracked is not None:
            self._rest_since_s = time.monotonic()
            tracked.fail(_error(refused.error, refused.message, RequestError))
            self._on_over(tracked)
            self.drop_adapters()
            self._moved_on(refused.key)

    def _moved_on(self, key: int) -> None:
        if self._process is not None:
            self._recovery.moved_on(self._process, key)


def _words(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"


def _error(name: str, message: str, other: type[EngineError]) -> EngineError:
    """The exception that the worker had; one of another class where that is not known here."""
    found = getattr(errors, name, other)
    return found(message) if isinstance(found, type) and issubclass(found, EngineError) else other(message)
