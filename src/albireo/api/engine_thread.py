"""A thread that steps the engine, and the streams that carry outputs to readers on event loops.

Called by async_llm.py. The boundary is queues: commands go in under a lock, outputs go out by call_soon_threadsafe.
Does not know prompts or parameters.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

from albireo.api.driver import Driver
from albireo.api.requests.request_record import RequestRecord
from albireo.api.requests.submission import Submission
from albireo.engine.stats import EngineStats
from albireo.errors import EngineError
from albireo.outputs import EmbeddingRequestOutput, RequestOutput

#: What a reader is told: everything so far, or the embedding.
Output = RequestOutput | EmbeddingRequestOutput


class Stream:
    """Outputs of one request on their way to its reader.

    Invariants: 1. the last put is a finished output or an error, and nothing comes after it; 2. outputs hold
    everything so far, so a slow reader gets the newest and misses none of it.
    put() and next() belong to the event loop.
    """

    def __init__(self, request_id: str, submission: Submission, priority: int, arrival_s: float) -> None:
        self.request_id = request_id
        self.submission = submission
        self.priority = priority
        self.arrival_s = arrival_s
        self.loop = asyncio.get_running_loop()
        self.is_over = False
        self._news = asyncio.Event()
        self._newest: Output | Exception | None = None

    def put(self, newest: Output | Exception) -> None:
        """An output, or what ended the request instead of one."""
        self._newest = newest
        self._news.set()

    async def next(self) -> Output:
        """The newest output that was not read yet. Raises: what ended the request instead of an output."""
        assert not self.is_over, "read beyond the end"
        await self._news.wait()
        self._news.clear()
        newest = self._newest
        assert newest is not None, "there is news"
        if isinstance(newest, Exception):
            self.is_over = True
            raise newest
        self.is_over = newest.finished
        return newest


@dataclass(frozen=True, slots=True)
class _Add:
    stream: Stream


@dataclass(frozen=True, slots=True)
class _Cancel:
    """The reader is gone: end its request, tell nobody."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str


@dataclass(frozen=True, slots=True)
class _Reset:
    """Forget prefixes; done is told."""

    with_files: bool
    done: Future[None]


_Command = _Add | _Cancel | _Abort | _Reset


class EngineThread:
    """Invariants: 1. the driver is touched by this thread only; 2. each stream that add() took gets its end."""

    def __init__(self, driver: Driver, prepare: Callable[[], bool] = lambda: False) -> None:
        """Args: prepare: what later steps would wait for, done while there are no requests; see Loaded."""
        self._driver = driver
        self._prepare, self._is_prepared = prepare, False
        self._streams: dict[str, Stream] = {}
        self._lock = threading.Condition()
        self._commands: deque[_Command] = deque()
        self._is_stopping = False
        self._failure: BaseException | None = None
        self._pid = os.getpid()
        # A daemon: a program that ends without shutdown() is not held up by idle threads.
        self._thread = threading.Thread(target=self._run, name="albireo-engine", daemon=True)
        self._thread.start()

    # -- from any thread -----------------------------------------------------------------------------------------------

    def check_process(self) -> None:
        """Raises: EngineError in a process that was forked from the one which has this thread."""
        if os.getpid() != self._pid:
            raise EngineError(
                f"process {os.getpid()} was forked from {self._pid}, whose engine thread is not in it; "
                "make a new one here, or use LLM, which has no thread"
            )

    def add(self, stream: Stream) -> None:
        """Run a request. Raises: EngineError when the thread has stopped."""
        self._ask(_Add(stream))

    def cancel(self, stream: Stream) -> None:
        """End a request whose reader has gone; nothing more is put into its stream."""
        self._tell(_Cancel(stream))

    def abort(self, request_id: str) -> None:
        """End a request; its stream gets a last output with finish_reason "abort". Unknown ids are fine."""
        self._tell(_Abort(request_id))

    def reset_prefix_cache(self, with_files: bool) -> Future[None]:
        """See Engine.reset_prefix_cache(). Returns: what is done once that is. Raises: as add()."""
        command = _Reset(with_files, Future())
        self._ask(command)
        return command.done

    def stats(self) -> EngineStats:
        """Counters and what is held now."""
        return self._driver.stats()

    def stop(self) -> None:
        """Abort everything, and wait for the thread's end. Cost: at most a step, or a piece of preparing for one."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_stopping = True
            self._lock.notify()
        if threading.current_thread() is not self._thread:  # a finalizer may run anywhere
            self._thread.join()

    def _ask(self, command: _Add | _Reset) -> None:
        with self._lock:
            if self._is_stopping:
                why = "it was shut down" if self._failure is None else f"it failed: {self._failure!r}"
                raise EngineError(f"the engine does not run any more, {why}; make a new one") from self._failure
            self._commands.append(command)
            self._lock.notify()

    def _tell(self, command: _Cancel | _Abort) -> None:
        with self._lock:
            self._commands.append(command)
            self._lock.notify()

    # -- on the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            for request_id in list(self._streams):
                self._obey(_Abort(request_id))
        except BaseException as error:
            self._fail(error)

    def _turn(self) -> bool:
        """Obey what was asked for, then one step; or prepare for one, a piece a turn.

        Returns: False when the thread is to end.
        """
        with self._lock:
            while self._is_idle() and self._is_prepared:
                self._lock.wait()
            is_idle, is_stopping = self._is_idle(), self._is_stopping
        if is_idle:
            self._is_prepared = not self._prepare()
            return True
        while self._commands:  # nobody else takes from it
            self._obey(self._commands.popleft())
        if is_stopping:
            return False
        self._report(self._driver.step())
        self._is_prepared = False  # steps of a new kind may be wanted again
        return True

    def _is_idle(self) -> bool:
        return not (self._commands or self._is_stopping or self._driver.has_work())

    def _obey(self, command: _Command) -> None:
        if isinstance(command, _Add):
            self._add(command.stream)
        elif isinstance(command, _Cancel):
            stream = command.stream
            if self._streams.get(stream.request_id) is stream:
                del self._streams[stream.request_id]
                self._driver.abort(stream.request_id)
        elif isinstance(command, _Reset):
            try:
                self._driver.reset_prefix_cache(command.with_files)
            except Exception as error:
                command.done.set_exception(error)
            else:
                command.done.set_result(None)
        else:
            record = self._driver.abort(command.request_id)
            self._report([] if record is None else [record])

    def _add(self, stream: Stream) -> None:
        try:
            self._driver.add(stream.request_id, stream.submission, priority=stream.priority, arrival_s=stream.arrival_s)
        except Exception as error:
            self._put([(stream, error)])
        else:
            self._streams[stream.request_id] = stream

    def _report(self, records: Iterable[RequestRecord]) -> None:
        news: list[tuple[Stream, Output | Exception]] = []
        for record in records:
            stream = self._streams[record.request_id]
            news.append((stream, _told(record)))
            if record.is_finished:
                del self._streams[record.request_id]
        if news:
            self._put(news)

    def _put(self, news: list[tuple[Stream, Output | Exception]]) -> None:
        """Hand news to the event loops, at one call each: waking a loop costs a system call."""
        loops = {stream.loop for stream, _ in news}
        for loop in loops:
            batch = news if len(loops) == 1 else [(stream, item) for stream, item in news if stream.loop is loop]
            try:
                loop.call_soon_threadsafe(_deliver, batch)
            except RuntimeError:  # the loop is closed, its readers are gone
                for stream, _ in batch:
                    self._obey(_Cancel(stream))

    def _fail(self, error: BaseException) -> None:
        """The driver itself failed: there is no way on."""
        with self._lock:
            self._failure = error
            self._is_stopping = True
            pending = [command.stream for command in self._commands if isinstance(command, _Add)]
            resets = [command for command in self._commands if isinstance(command, _Reset)]
        failure = EngineError(f"the engine failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        for command in resets:
            command.done.set_exception(failure)
        streams = [*self._streams.values(), *pending]
        self._streams.clear()
        self._put([(stream, failure) for stream in streams])


def _told(record: RequestRecord) -> Output | Exception:
    if record.submission.pooling is None:
        return record.output()
    try:
        return record.embedding()
    except EngineError as error:
        return error


def _deliver(batch: list[tuple[Stream, Output | Exception]]) -> None:
    for stream, item in batch:
        stream.put(item)
