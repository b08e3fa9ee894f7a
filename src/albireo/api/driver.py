"""The engine with text: requests in, steps, outputs out; a step that fails ends the guilty request, not the others.

Called by llm.py and engine_thread.py, from one thread at a time. Does not know callers, threads or event loops.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable

from albireo.api.admission import Submission
from albireo.api.request_record import RequestRecord
from albireo.engine.engine import Engine
from albireo.engine.request import SequenceUpdate
from albireo.engine.settings import EngineSettings
from albireo.engine.stats import EngineStats
from albireo.step import StepPlan, StepResult
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
_SEQUENCE = re.compile(r"\bsequence (\d+)\b")


class Driver:
    """Invariants:
    1. every request that add() took is returned finished exactly once, by step() or abort();
    2. between calls a stop string found in a text has ended its continuation in the engine, too.
    """

    def __init__(
        self,
        settings: EngineSettings,
        execute: Callable[[StepPlan], StepResult],
        tokenizer: Tokenizer | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._execute = execute
        self._engine = Engine(settings, self._noting, clock)
        self._tokenizer = tokenizer
        self._records: dict[str, RequestRecord] = {}
        self._plan: StepPlan | None = None

    def add(
        self, request_id: str, submission: Submission, *, priority: int = 0, arrival_s: float | None = None
    ) -> RequestRecord:
        """Let a request wait for its turn.

        Raises: InvalidParams, PromptTooLong: it is refused, nothing else has changed.
        """
        self._engine.add_request(
            request_id,
            submission.prompt_token_ids,
            submission.params,
            priority=priority,
            cache_salt=submission.cache_salt,
            arrival_s=arrival_s,
            constraint=submission.constraint,
        )
        record = RequestRecord(request_id, submission, self._tokenizer)
        self._records[request_id] = record
        return record

    def abort(self, request_id: str) -> RequestRecord | None:
        """End a request on its caller's wish. Returns: its record; None when it is unknown or over."""
        updates = self._engine.abort(request_id)
        changed = self._take(updates)
        return changed[0] if changed else None

    def has_work(self) -> bool:
        """Whether a request is unfinished."""
        return self._engine.has_work()

    def stats(self) -> EngineStats:
        """A snapshot; may be asked for from any thread."""
        return self._engine.stats()

    def step(self) -> list[RequestRecord]:
        """Advance what fits.

        Returns: the requests with something new, finished ones for the last time.
        Cost: 1 µs a running sequence beside the engine's own, unless it has stop strings.
        """
        return self._take(self._advance())

    def _take(self, updates: Iterable[SequenceUpdate]) -> list[RequestRecord]:
        records = self._records
        changed: dict[str, RequestRecord] = {}
        stopped: list[tuple[SequenceUpdate, str]] = []
        for update in updates:
            record = changed[update.request_id] = records[update.request_id]
            stop = record.take(update)
            if stop is not None:
                stopped.append((update, stop))
        # Only now: ending one continuation may end its request, whose other updates have to be taken first.
        for update, stop in stopped:
            end = self._engine.finish(update.request_id, update.index, "stop", stop)
            if end is not None:
                changed[end.request_id].take(end)
        for request_id, record in changed.items():
            if record.is_finished:
                del records[request_id]
        return list(changed.values())

    # -- when a step fails ---------------------------------------------------------------------------------------------

    def _noting(self, plan: StepPlan) -> StepResult:
        self._plan = plan
        return self._execute(plan)

    def _advance(self) -> list[SequenceUpdate]:
        self._plan = None
        try:
            return self._engine.step()
        except Exception as error:
            _LOG.warning("a step failed and is tried once more: %s", error)
        try:
            return self._engine.step()
        except Exception as error:
            _LOG.error("a step failed twice", exc_info=error)
            return self._end_guilty(error)

    def _end_guilty(self, error: Exception) -> list[SequenceUpdate]:
        """End the continuations that the error names; if it names none, those the step was for."""
        named = [int(seq_id) for seq_id in _SEQUENCE.findall(str(error))]
        updates = self._end(self._owners(named), error)
        if not updates and self._plan is not None:
            updates = self._end(self._owners(_planned(self._plan)), error)
        if not updates:
            # It failed before there was a plan: nothing can be told apart.
            records = list(self._records.values())
            updates = self._end([(r.request_id, i) for r in records for i in range(r.submission.params.n)], error)
        return updates

    def _owners(self, seq_ids: Iterable[int]) -> list[tuple[str, int]]:
        owners = (self._engine.owner(seq_id) for seq_id in seq_ids)
        return [owner for owner in owners if owner is not None]

    def _end(self, owners: Iterable[tuple[str, int]], error: Exception) -> list[SequenceUpdate]:
        reason = f"{type(error).__name__}: {error}"
        updates = [self._engine.finish(request_id, index, "error", reason) for request_id, index in owners]
        return [update for update in updates if update is not None]


def _planned(plan: StepPlan) -> list[int]:
    tasks = [task.seq_id for work in plan.work for task in work.samples]
    return list(dict.fromkeys([*tasks, *(work.seq_id for work in plan.work)]))
