"""The engine with text: requests in, steps, outputs out. What becomes of a failed step: guarded_engine.py.

Called by llm.py and engine_thread.py, from one thread at a time. Does not know callers, threads or event loops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from albireo.api.adapters import Adapters
from albireo.api.guarded_engine import GuardedEngine
from albireo.api.requests.request_record import RequestRecord
from albireo.api.requests.submission import Submission
from albireo.engine.kept_prefixes import BlockFiles
from albireo.engine.request import SequenceUpdate
from albireo.engine.settings import EngineSettings
from albireo.engine.stats import EngineStats
from albireo.speculative.proposer import Method
from albireo.step import StepPlan, StepResult
from albireo.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from albireo.api.load import Loaded


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
        adapters: Adapters | None = None,
        method: Method | None = None,
        files: BlockFiles | None = None,
    ) -> None:
        """Args: adapters: those that requests may have. method, files: as Engine has them."""
        self._guarded = GuardedEngine(settings, execute, clock, method, files)
        self._engine = self._guarded.engine
        self._tokenizer, self._clock = tokenizer, clock
        self._adapters = adapters
        self._records: dict[str, RequestRecord] = {}

    @classmethod
    def of(cls, loaded: Loaded) -> Driver:
        """The driver of a loaded model."""
        return cls(
            loaded.settings,
            loaded.execute,
            loaded.tokenizer,
            adapters=loaded.adapters,
            method=loaded.method,
            files=loaded.files,
        )

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
            pooling=submission.pooling,
            budget=submission.budget,
            adapter=submission.adapter,
            images=submission.images,
        )
        waited_s = 0.0 if arrival_s is None else self._clock() - arrival_s
        record = RequestRecord(request_id, submission, self._tokenizer, time.time() - waited_s)
        self._records[request_id] = record
        return record

    def abort(self, request_id: str) -> RequestRecord | None:
        """End a request on its caller's wish. Returns: its record; None when it is unknown or over."""
        updates = self._engine.abort(request_id)
        changed = self._take(updates)
        return changed[0] if changed else None

    def reset_prefix_cache(self, with_files: bool) -> None:
        """See Engine.reset_prefix_cache()."""
        self._engine.reset_prefix_cache(with_files=with_files)

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
        changed = self._take(self._guarded.step())
        if self._adapters is not None and self._adapters.has_leaving:
            self._adapters.let_go(self._engine.adapters()[1])
        return changed

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
            for end in self._engine.finish(update.request_id, update.index, "stop", stop):
                changed[end.request_id].take(end)
        for request_id, record in changed.items():
            if record.is_finished:
                del records[request_id]
        return list(changed.values())
