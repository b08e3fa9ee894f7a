"""One accepted request on the client's side: everything it has so far, so that another engine process can go on.

Made by client.py, read by the server. Does not know processes or HTTP.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from albireo.api.requests.continuation import Continuation
from albireo.api.requests.submission import Submission
from albireo.engine_process.messages import Add, Progress, Update
from albireo.outputs import FinishReason
from albireo.step import TokenLogprobs
from albireo.text.tokenizer import Tokenizer

#: stop_reason of what the end of the server ends.
SHUTTING_DOWN = "the server is shutting down"


class Inbox:
    """Which requests of one reader have news. Wakes its reader once, however much has come since.

    Attributes:
        wants_ends_only: the reader is not woken before a request is over.
    """

    def __init__(self, wants_ends_only: bool = False) -> None:
        self.wants_ends_only = wants_ends_only
        self._news: dict[int, Tracked] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None

    async def wait(self) -> list[Tracked]:
        """Requests with news since the last call, at least one. Raises: what fail() was given."""
        if not self._news and self._failure is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None:
            raise self._failure
        found = list(self._news.values())
        self._news.clear()
        return found

    def put(self, tracked: Tracked) -> None:
        """This one has news."""
        if self.wants_ends_only and not tracked.is_over:
            return
        self._news[tracked.key] = tracked
        self._wake()

    def fail(self, error: Exception) -> None:
        """Let the reader's wait() raise, now and always."""
        if self._failure is None:
            self._failure = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(slots=True)
class Times:
    """When things happened, seconds of the monotonic clock; None: not yet.

    Fields:
        compiled_s: its grammar was there.
        restarts_s: spent without an engine process, since it died until it was given to the next one.
        preempted_s: see RequestMetrics.
    """

    arrival_s: float
    compiled_s: float | None = None
    first_scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_s: float | None = None
    restarts_s: float = 0.0
    preempted_s: float = 0.0


@dataclass(slots=True)
class Strikes:
    """Deaths of the process while this request was computed and had the same tokens.

    Fields: num: of them all; num_alone: those in which nothing else was computed; at: tokens it had.
    """

    num: int = 0
    num_alone: int = 0
    at: int = -1


@dataclass(slots=True, eq=False)
class Tracked:
    """Invariants: 1. is_over turns True once, with the last continuation's end or with error; 2. tokens are added at
    the end only, each once.

    Fields:
        key: names it in the server; ascending in order of arrival.
        ticket: names it to the engine that has it; a new one with each engine, so that what an earlier one still says
            is not heard. replica: which engine that is.
        num_pending: tokens that are computed there before its next one comes, as far as is known.
        num_moves: from one engine to another.
        error: why it never ran.
        num_ended: continuations that ended.
        embedding: of the prompt, where it is wanted and done; float32, little-endian.
        num_rounds: of a beam search, since it began anew; furthest: the most there ever were.
        has_left_queue: kept by the server: it got its first token, or ended without one.
        is_counted, num_counted: kept by the server's metrics: its first token was; tokens that were.
    """

    key: int
    request_id: str
    submission: Submission
    priority: int
    inbox: Inbox
    times: Times
    continuations: list[Continuation] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] | None = None
    embedding: bytes | None = None
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    num_prefill_chunks: int = 0
    num_restarts: int = 0
    ticket: int = 0
    replica: int = 0
    num_pending: int = 0
    num_moves: int = 0
    num_ended: int = 0
    is_over: bool = False
    error: Exception | None = None
    num_rounds: int = 0
    furthest: int = 0
    has_left_queue: bool = False
    is_counted: bool = False
    num_counted: int = 0
    strikes: Strikes = field(default_factory=Strikes)

    @classmethod
    def new(
        cls,
        key: int,
        request_id: str,
        submission: Submission,
        priority: int,
        inbox: Inbox,
        arrival_s: float,
        tokenizer: Tokenizer | None,
    ) -> Tracked:
        """A request without any tokens yet. submission.params names a seed."""
        params = submission.params
        tracked = cls(key, request_id, submission, priority, inbox, Times(arrival_s), ticket=key)
        used = tokenizer if params.detokenize else None
        tracked.continuations = [
            Continuation(index, params, submission.prompt_token_ids, used) for index in range(params.n)
        ]
        return tracked

    @property
    def num_output_tokens(self) -> int:
        """Of all continuations."""
        return sum(len(continuation.token_ids) for continuation in self.continuations)

    @property
    def how_far(self) -> int:
        """Grows as it gets on: a beam search gives no token before its end, and is begun anew by another process."""
        return self.num_output_tokens + self.furthest

    @property
    def has_failed(self) -> bool:
        """Whether it was refused, or the engine gave it up."""
        return self.error is not None or any(c.finish_reason == "error" for c in self.continuations)

    def add_message(self) -> Add:
        """What lets an engine process begin with it, or go on."""
        earlier = None
        self.num_rounds = 0
        if self.num_ended or self.num_output_tokens:
            earlier = [None if c.finish_reason is not None else c.token_ids for c in self.continuations]
        submission = self.submission
        return Add(
            self.ticket,
            submission.prompt_token_ids,
            submission.params,
            self.priority,
            submission.cache_salt,
            self.times.arrival_s,
            earlier,
            submission.pooling,
            submission.adapter,
            submission.images,
        )

    def take(self, update: Update, now_s: float) -> bool:
        """Note what the engine says. Returns: whether a stop string ended this continuation just now."""
        self.num_pending = 0
        if update.progress is not None:
            self._note(update.progress)
        continuation = self.continuations[update.index]
        if continuation.finish_reason is not None:
            return False  # the engine did not know yet
        if update.embedding is not None:
            self.embedding = update.embedding
        if not update.token_ids and update.finish_reason is None:  # a round of a beam search
            self.num_rounds += 1
            self.furthest = max(self.furthest, self.num_rounds)
            self.times.last_token_s = now_s
        if update.token_ids or update.embedding is not None:
            self.times.last_token_s = now_s
        stop = continuation.take(update)
        if stop is not None:
            continuation.end("stop", stop)
        if continuation.finish_reason is not None:
            self.num_ended += 1
            if self.num_ended == len(self.continuations):
                self._close()
        self.inbox.put(self)
        return stop is not None

    def fail(self, error: Exception) -> None:
        """It never runs."""
        if not self.is_over:
            self.error = error
            self._close()
            self.inbox.put(self)

    def end_all(self, finish_reason: FinishReason, reason: str | None) -> None:
        """End what goes on, for a reason in words."""
        for continuation in self.continuations:
            if continuation.finish_reason is None:
                continuation.end(finish_reason, reason)
        self._close()
        self.inbox.put(self)

    def _close(self) -> None:
        self.num_ended = len(self.continuations)
        self.is_over = True
        self.times.ended_s = time.monotonic()

    def _note(self, progress: Progress) -> None:
        times = self.times
        if times.first_scheduled_s is None:
            times.first_scheduled_s = progress.first_scheduled_s
            self.num_cached_tokens = progress.num_cached_tokens
        if times.compiled_s is None:
            times.compiled_s = progress.compiled_s
        if times.first_token_s is None:
            times.first_token_s = progress.first_token_s
            self.num_prefill_chunks = progress.num_prefill_chunks
        times.preempted_s = max(times.preempted_s, progress.preempted_s)
        if self.prompt_logprobs is None:
            self.prompt_logprobs = progress.prompt_logprobs
        self.num_preemptions = max(self.num_preemptions, progress.num_preemptions)
