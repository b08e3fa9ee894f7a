"""A file of requests run without a server: the life of `albireo run-batch`.

Called by cli/run_batch.py. Lines go through the endpoints as those of the server's batches do; their results are on the
disk before they count, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from albireo.errors import ConfigError, InvalidParams
from albireo.replicas.place import Place
from albireo.server.app import application
from albireo.server.batches.durable import Lock
from albireo.server.batches.gate import Gate
from albireo.server.batches.inside import Inside
from albireo.server.batches.job import Job
from albireo.server.batches.lines import Limits, Line, check, read
from albireo.server.batches.results import NotOurs, Results
from albireo.server.protocol.batches import BatchUsage, RequestCounts
from albireo.server.serving import Serving
from albireo.server.settings import ServerSettings

#: Sequences inside, of those that the engine has seats for, so that none is empty for long.
_SEATS_FRAC = 2
#: Bodies of the largest size inside.
_MAX_BODIES = 8
#: Errors of an input that are told.
_MAX_TOLD = 5
_MAX_LINES = 1 << 31
_PROGRESS_S = 0.1


class BatchRun:
    """One input and its output. Attributes: counts, usage: of all results, earlier runs' included."""

    def __init__(self, source: Path, output: Path, settings: ServerSettings) -> None:
        """Raises: InvalidParams for an input that is none; ConfigError, OSError."""
        self.counts, self.usage = RequestCounts(), BatchUsage()
        self._settings = settings
        limits = Limits(_MAX_LINES << 20, _MAX_LINES, settings.max_body_bytes)
        self._lines: partial[Iterator[Line]] = partial(read, source, None, limits)
        found = check(source, None, limits)
        if found.errors:
            told = [f"{source}{f', line {each.line}' * bool(each.line)}: {each.message}" for each in found.errors]
            more = f"\n({len(told) - _MAX_TOLD} more)" * (len(told) > _MAX_TOLD)
            raise InvalidParams("\n".join(told[:_MAX_TOLD]) + more)
        if output.exists() and not output.is_file():
            raise ConfigError(f"{output} is no file; results are kept in one, so that a run can go on")
        if output.exists() and os.path.samefile(source, output):
            raise ConfigError(f"{output} is the input; name another file for the results")
        self._output, self._names, self.counts.total = output, found.numbers.keys(), found.num_lines

    @contextmanager
    def opened(self) -> Iterator[Results]:
        """The results, which no other run has meanwhile. Raises: ConfigError."""
        lock = Lock(self._output, str(self._output))
        try:
            try:
                results = Results(self._output, self._output, self.counts, self.usage, is_ours=False)
            except NotOurs as error:
                raise ConfigError(f"{self._output}: {error}; name another file for the results") from None
            if strange := results.done - self._names:
                words = f"has results that are not of this input, such as {min(strange)!r:.100}; name another file"
                raise ConfigError(f"{self._output} {words}")
            yield results
        finally:
            lock.release()

    def run(
        self,
        results: Results,
        engine: Mapping[str, Any],
        places: Sequence[Place],
        max_inflight: int | None,
        advance: Callable[[int], None],
    ) -> None:
        """Run what has no result. Args: advance: told how many lines more are over.
        Raises: EngineError when the engine cannot run any more."""
        uvloop.run(self._run(results, Serving(self._settings, engine, places), max_inflight, advance))

    async def _run(
        self, results: Results, serving: Serving, max_inflight: int | None, advance: Callable[[int], None]
    ) -> None:
        telling = asyncio.create_task(self._tell(advance))
        try:
            inside = Inside(application(serving), 0)
            await serving.load()
            num_seats = max_inflight or _SEATS_FRAC * serving.ready.max_num_seqs * len(serving.client.engines)
            gate = Gate(num_seats, _MAX_BODIES * self._settings.max_body_bytes, lambda: True)
            job = Job(self._lines, results, inside, gate, lambda: serving.failure() is not None)
            await _first(job.run(), serving)
        finally:
            telling.cancel()
            await results.close()
            await serving.close()

    async def _tell(self, advance: Callable[[int], None]) -> None:
        num_told = self.counts.completed + self.counts.failed
        while True:
            await asyncio.sleep(_PROGRESS_S)
            num_over = self.counts.completed + self.counts.failed
            advance(num_over - num_told)
            num_told = num_over


async def _first(work: Any, serving: Serving) -> None:
    """Until the work is done, or the engine failed. Raises: what made it fail."""
    working = asyncio.create_task(work)
    failing = asyncio.create_task(serving.client.wait_until_failed())
    try:
        await asyncio.wait([working, failing], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise failing.result()
    finally:
        for task in (working, failing):
            task.cancel()
        await asyncio.wait([working])
    working.result()
