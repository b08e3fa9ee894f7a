"""The life of batches: checked, run, made files of; gone on with after a restart from where they were.

Made by run.py, told by the endpoints. Each batch is a task; what it did is in the store before it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from starlette.types import ASGIApp

from albireo.server.batches.collector import BatchCollector
from albireo.server.batches.gate import Gate
from albireo.server.batches.inside import Inside
from albireo.server.batches.job import Job
from albireo.server.batches.lines import BadLine, Limits, Line, check, read
from albireo.server.batches.results import Results
from albireo.server.batches.store import MAX_OPEN, Record, Store
from albireo.server.errors import NO_RETRY, HttpError, busy
from albireo.server.protocol.batches import Batch, BatchError, BatchErrors
from albireo.server.serving import BEHIND_ALL, Serving

_LOG = logging.getLogger("albireo.server")

#: Seconds until a disk that is full, or fails, is tried again.
RETRY_S = 5.0
#: Bodies of the largest size that are inside at one time.
_MAX_BODIES = 2
#: Outcome -> why a line was not run.
_SKIPPED = {
    "expired": ("batch_expired", "the completion window ended before this request was run"),
    "cancelled": ("batch_cancelled", "the batch was cancelled before this request was run"),
}


class Batches:
    """All batches of a server.

    Attributes: store: what there is of them.
    """

    def __init__(self, serving: Serving, directory: Path) -> None:
        """Raises: ConfigError for a directory that cannot be used."""
        settings = serving.settings
        self.store = Store(directory)
        self.limits = Limits(settings.batch_max_file_bytes, settings.batch_max_lines, settings.max_body_bytes)
        self._serving = serving
        self._app: ASGIApp | None = None
        self._gate: Gate | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._jobs: dict[str, asyncio.Task[None]] = {}

    def use(self, app: ASGIApp) -> None:
        """What lines are asked of: the application, without a check for keys."""
        self._app = app

    # -- what the endpoints ask for ------------------------------------------------------------------------------------

    async def add(self, batch: Batch) -> None:
        """Run a new one. Raises: HttpError 429 when too many are not over."""
        num_open = len(self.store.open_records())
        if num_open >= MAX_OPEN:
            raise busy(
                429, f"{num_open} batches are not over, at most {MAX_OPEN} may be; come again later", "queue_full", 60
            )
        record = Record(batch, self.store.new_id("file-"), self.store.new_id("file-"))
        self.store.records[batch.id] = record
        try:
            await self.store.save(record)
        except OSError:
            del self.store.records[batch.id]
            raise
        self._begin(record)

    async def cancel(self, record: Record) -> None:
        """End one. Its lines that run are ended, too. Raises: HttpError 409 when it is over, or nearly."""
        batch = record.batch
        if batch.status in ("cancelling", "cancelled"):
            return
        if batch.status not in ("validating", "in_progress"):
            words = f"the batch is {batch.status}; only one that is validating or in_progress can be cancelled"
            raise HttpError(409, words, code="batch_not_cancellable", headers=NO_RETRY)
        before = batch.status
        batch.status, batch.cancelling_at = "cancelling", int(time.time())
        try:
            await self.store.save(record)
        except OSError:
            batch.status, batch.cancelling_at = before, None
            raise
        if batch.id in self._jobs:
            self._jobs[batch.id].cancel()

    async def drop_file(self, file_id: str) -> None:
        """Delete a file. Raises: HttpError 404, 409 when a batch reads it."""
        self.store.file(file_id)
        for record in self.store.open_records():
            if record.batch.input_file_id == file_id:
                words = f"the file is the input of {record.batch.id}, which is {record.batch.status}; cancel that first"
                raise HttpError(409, words, code="file_in_use", headers=NO_RETRY)
        await self.store.drop_file(file_id)

    # -- their life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """The model is loaded: run what is not over."""
        serving = self._serving
        num_seats = serving.settings.batch_max_inflight or serving.ready.max_num_seqs * len(serving.client.engines) // 2
        max_bytes = _MAX_BODIES * serving.settings.max_body_bytes
        gate = Gate(max(1, num_seats), max_bytes, lambda: not serving.num_queued and not serving.is_draining)
        self._gate = gate
        assert serving.metrics is not None, "loaded"
        records = self.store.records
        collector = BatchCollector(serving.names[0], lambda: [*records.values()], lambda: gate.num_inside)
        serving.metrics.registry.register(collector)
        for record in self.store.open_records():
            self._begin(record)

    async def stop(self) -> None:
        """Let lines that run be run again by the next server."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.store.release()

    def _begin(self, record: Record) -> None:
        if self._gate is not None:
            self._tasks[record.batch.id] = task = asyncio.create_task(self._live(record))
            task.add_done_callback(lambda _: self._tasks.pop(record.batch.id, None))

    async def _live(self, record: Record) -> None:
        """Until it is over."""
        told = None
        while True:
            try:
                await self._advance(record)
                return
            except Exception as error:
                cause = _first_cause(error)
                if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                    reason = str(cause.strerror or cause)
                    if reason != told:  # once, however long it lasts
                        told = reason
                        _LOG.error("%s waits for the disk (%s)", record.batch.id, reason)
                    await asyncio.sleep(RETRY_S)
                    continue
                _LOG.error("%s cannot go on", record.batch.id, exc_info=cause)
                if record.outcome == "failed":
                    return  # it cannot even be ended; the next server tries
                record.batch.errors = BatchErrors([_told(cause)])
                record.is_checked, record.outcome = True, "failed"

    async def _advance(self, record: Record) -> None:
        """From where it is to its end; each part may fail, and is done again."""
        batch = record.batch
        if not record.is_checked:
            await self._check(record)
        if record.outcome is None:
            await self._work(record)
        assert record.outcome is not None, "it was worked on"
        if not record.is_over:
            await self.store.keep_results(record)
            setattr(batch, f"{record.outcome}_at", int(time.time()))
            batch.status = record.outcome
        await self.store.save(record)

    async def _check(self, record: Record) -> None:
        batch = record.batch
        path = self.store.content(batch.input_file_id)
        found = await asyncio.to_thread(check, path, batch.endpoint, self.limits)
        record.is_checked = True
        if found.errors:
            record.outcome = "cancelled" if batch.status == "cancelling" else "failed"
            batch.errors = BatchErrors(found.errors)
        else:
            batch.request_counts.total, batch.model = found.num_lines, found.model
            if batch.status == "validating":
                batch.status, batch.in_progress_at = "in_progress", int(time.time())
        await self.store.save(record)

    async def _work(self, record: Record) -> None:
        batch = record.batch
        output, errors = self.store.results(record)
        results = await asyncio.to_thread(Results, output, errors, batch.request_counts, batch.usage)
        try:
            job = self._job(batch, results)
            outcome = await self._run(batch, job)
            if outcome in _SKIPPED:
                await job.skip(*_SKIPPED[outcome])
        finally:
            await results.close()
        record.outcome = outcome
        if batch.status == "in_progress":
            batch.status, batch.finalizing_at = "finalizing", int(time.time())
        await self.store.save(record)

    def _job(self, batch: Batch, results: Results) -> Job:
        path = self.store.content(batch.input_file_id)
        assert self._app is not None and self._gate is not None, "started"
        lines: partial[Iterator[Line]] = partial(read, path, batch.endpoint, self.limits)
        return Job(lines, results, Inside(self._app, BEHIND_ALL), self._gate, self._is_ending)

    def _is_ending(self) -> bool:
        return self._serving.is_draining or self._serving.failure() is not None

    async def _run(self, batch: Batch, job: Job) -> str:
        """Run its lines as long as it may. Returns: what the batch becomes."""
        if batch.status == "cancelling":
            return "cancelled"
        self._jobs[batch.id] = task = asyncio.create_task(job.run())
        try:
            await asyncio.wait([task], timeout=max(0.0, batch.expires_at - time.time()))
        finally:
            del self._jobs[batch.id]
            is_late = not task.done()
            task.cancel()
            await asyncio.wait([task])
        if is_late and task.cancelled():
            return "expired"
        if task.cancelled():
            return "cancelled"
        task.result()
        return "completed"


def _told(error: BaseException) -> BatchError:
    """Why a batch cannot go on, for its owner."""
    if isinstance(error, BadLine):
        return BatchError("input_changed", f"the input is another one by now: {error}")
    if isinstance(error, FileNotFoundError):
        return BatchError("input_gone", "the input is gone")
    return BatchError("internal", "internal error; the server's log has more")


def _first_cause(error: BaseException) -> BaseException:
    """Of what a group of tasks raised."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
