"""Where the time of each request went: an account that is open while it runs, and kept for a while afterwards.

Filled by generation.py, told by the explain endpoint and the log. Does not know texts.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from albireo.engine_process.tracked import Tracked

#: Accounts kept of requests that are over.
MAX_KEPT = 1024


@dataclass(slots=True)
class Account:
    """One HTTP request, which may be of several prompts. Times on the monotonic clock.

    Fields:
        ahead_running, ahead_waiting, ahead_tokens: requests that were there when it came; prompt tokens of the latter.
        answered_s: its last byte was handed over; None while it runs.
        reading_since_s: since when the client keeps us waiting; None while it does not.
        reading_s: spent waiting for it; late_s: of this, after the engine's work was done.
    """

    request_id: str
    path: str
    received_s: float
    submitted_s: float
    ahead_running: int
    ahead_waiting: int
    ahead_tokens: int
    requests: list[Tracked] = field(default_factory=list)
    answered_s: float | None = None
    reading_since_s: float | None = None
    reading_s: float = 0.0
    late_s: float = 0.0

    def begin_sending(self) -> None:
        """The client may keep us waiting from now on, until end_sending()."""
        self.reading_since_s = time.monotonic()

    def end_sending(self) -> None:
        """It took what was sent."""
        self.reading_s, self.late_s = self._reading(time.monotonic())
        self.reading_since_s = None

    def timings(self) -> dict[str, float]:
        """Seconds from its arrival to its end, or to now: wall_s, and the parts that sum to it, each counted once.

        With several prompts: until the first of them had its grammar, was scheduled, had its first token; until the
        last one ended.
        """
        end = time.monotonic() if self.answered_s is None else self.answered_s
        times = [tracked.times for tracked in self.requests]
        marks = {
            "admission_s": self.submitted_s,
            "grammar_s": _first(t.compiled_s for t in times) if self._has_form else self.submitted_s,
            "queue_s": _first(t.first_scheduled_s for t in times),
            "prefill_s": _first(t.first_token_s for t in times),
        }
        spans = dict.fromkeys((*marks, "decode_s"), 0.0)
        at = self.received_s
        for name, mark in marks.items():
            until = at if mark is None else min(max(mark, at), end)
            spans[name] = until - at
            at = until
        # It was, or is, in the first stage of which the end is not known.
        stage = next((name for name, mark in marks.items() if mark is None), "decode_s")
        worked_s = self._worked_s()
        until = end if worked_s is None and self.answered_s is None else min(max(at, worked_s or at), end)
        spans[stage] += until - at
        preempted_s = _take(spans, max((t.preempted_s for t in times), default=0.0), ("decode_s", "prefill_s"))
        without_s = max((t.restarts_s for t in times), default=0.0)
        restart_s = _take(spans, without_s, ("decode_s", "prefill_s", "queue_s", "grammar_s"))
        late_s = min(self._reading(end)[1], end - until)
        return {
            "wall_s": end - self.received_s,
            **spans,
            "preempted_s": preempted_s,
            "restart_s": restart_s,
            "slow_reader_s": late_s,
            "delivery_s": end - until - late_s,
        }

    def explain(self) -> dict[str, Any]:
        """The account, as the endpoint tells it."""
        parts = self.timings()
        return {
            "id": self.request_id,
            "path": self.path,
            "state": "running" if self.answered_s is None else "over",
            "wall_s": parts.pop("wall_s"),
            "parts": parts,
            "waited_for_reader_s": self._reading(time.monotonic())[0],
            "queued_behind": {
                "running": self.ahead_running,
                "waiting": self.ahead_waiting,
                "waiting_prompt_tokens": self.ahead_tokens,
            },
            "prompts": [_prompt(tracked) for tracked in self.requests],
        }

    def log(self) -> dict[str, Any]:
        """What the log says of it."""
        reasons = [c.finish_reason for tracked in self.requests for c in tracked.continuations]
        parts = self.timings()
        del parts["wall_s"]  # the log has the time of the whole connection
        return {
            "id": self.request_id,
            "prompt_tokens": sum(len(tracked.submission.prompt_token_ids) for tracked in self.requests),
            "cached_tokens": sum(tracked.num_cached_tokens for tracked in self.requests),
            "output_tokens": sum(tracked.num_output_tokens for tracked in self.requests),
            "finish": ",".join(sorted({reason or "refused" for reason in reasons})),
            "restarts": max((tracked.num_restarts for tracked in self.requests), default=0),
            **{name: round(value, 6) for name, value in parts.items()},
        }

    @property
    def _has_form(self) -> bool:
        return any(tracked.submission.params.structured_outputs is not None for tracked in self.requests)

    def _worked_s(self) -> float | None:
        """When the engine's work for it was done."""
        if not all(tracked.is_over for tracked in self.requests):
            return None
        return max((t.times.ended_s for t in self.requests if t.times.ended_s is not None), default=None)

    def _reading(self, now_s: float) -> tuple[float, float]:
        """reading_s and late_s, with what is being waited for now."""
        since_s = self.reading_since_s
        if since_s is None:
            return self.reading_s, self.late_s
        worked_s = self._worked_s()
        late_s = 0.0 if worked_s is None else max(0.0, now_s - max(since_s, worked_s))
        return self.reading_s + now_s - since_s, self.late_s + late_s


def _first(moments: Iterable[float | None]) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _take(spans: dict[str, float], seconds: float, names: tuple[str, ...]) -> float:
    """Take seconds out of the spans they were spent in, of these in order. Returns: how many there were."""
    left = seconds
    for name in names:
        taken = min(left, spans[name])
        spans[name] -= taken
        left -= taken
    return seconds - left


def _prompt(tracked: Tracked) -> dict[str, Any]:
    num_prompt = len(tracked.submission.prompt_token_ids)
    missed = tracked.num_cached_tokens if tracked.num_cached_tokens < num_prompt else None
    return {
        "prompt_tokens": num_prompt,
        "cached_tokens": tracked.num_cached_tokens,
        "first_token_not_cached": missed,
        "num_prefill_chunks": tracked.num_prefill_chunks,
        "output_tokens": [len(continuation.token_ids) for continuation in tracked.continuations],
        "finish_reasons": [continuation.finish_reason for continuation in tracked.continuations],
        "num_preemptions": tracked.num_preemptions,
        "num_restarts": tracked.num_restarts,
        "engine": tracked.replica,
        "num_moves": tracked.num_moves,
        "seed": tracked.submission.params.seed,
    }


class Accounts:
    """By request id; of those that are over the last MAX_KEPT, without their tokens."""

    def __init__(self) -> None:
        self._open: dict[str, Account] = {}
        self._kept: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def open(self, account: Account) -> None:
        """It runs."""
        self._open[account.request_id] = account

    def close(self, account: Account) -> None:
        """It is over."""
        account.answered_s = time.monotonic()
        if self._open.get(account.request_id) is account:
            del self._open[account.request_id]
        self._kept[account.request_id] = account.explain()
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def explain(self, request_id: str) -> dict[str, Any] | None:
        """The account of a request, or None when there is none any more."""
        account = self._open.get(request_id)
        return self._kept.get(request_id) if account is None else account.explain()

    @property
    def num_open(self) -> int:
        """Requests that are not over."""
        return len(self._open)

    def is_open(self, request_id: str) -> bool:
        """Whether a request of that id runs."""
        return request_id in self._open
