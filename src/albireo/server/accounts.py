"""Where the time of each request went: an account that is open while it runs, and kept for a while afterwards.

Filled by generation.py, told by the explain endpoint and the log. Does not know texts.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from albireo.engine_process.tracked import Tracked

#: Accounts kept of requests that are over.
MAX_KEPT = 1024


@dataclass(slots=True)
class Account:
    """One HTTP request, which may be of several prompts. Times on the monotonic clock.

    Fields:
        ahead_running, ahead_waiting: requests that were there when it came.
        answered_s: its last byte was handed over; None while it runs.
        reading_s: spent waiting for a client that reads slowly.
    """

    request_id: str
    path: str
    received_s: float
    submitted_s: float
    ahead_running: int
    ahead_waiting: int
    requests: list[Tracked] = field(default_factory=list)
    answered_s: float | None = None
    reading_s: float = 0.0

    def parts(self) -> dict[str, float]:
        """Seconds of the wall time, each counted once: they sum to wall_s.

        With several prompts: until the first of them was scheduled, had its first token; until the last one ended.
        """
        end = time.monotonic() if self.answered_s is None else self.answered_s
        times = [tracked.times for tracked in self.requests]
        marks = {
            "admission_s": self.submitted_s,
            "queue_s": min((t.first_scheduled_s for t in times if t.first_scheduled_s is not None), default=None),
            "prefill_s": min((t.first_token_s for t in times if t.first_token_s is not None), default=None),
        }
        spans = dict.fromkeys((*marks, "decode_s"), 0.0)
        at = self.received_s
        for name, mark in marks.items():
            until = at if mark is None else min(max(mark, at), end)
            spans[name] = until - at
            at = until
        # It was, or is, in the first stage of which the end is not known.
        stage = next((name for name, mark in marks.items() if mark is None), "decode_s")
        ended = [t.ended_s for t in times if t.ended_s is not None]
        until = end if self.answered_s is None else min(max([at, *ended]), end)
        spans[stage] += until - at
        rest = end - until
        return {**_without_restarts(spans, max((t.restarts_s for t in times), default=0.0)), "delivery_s": rest}

    def explain(self) -> dict[str, Any]:
        """The account, as the endpoint tells it."""
        end = time.monotonic() if self.answered_s is None else self.answered_s
        return {
            "id": self.request_id,
            "path": self.path,
            "state": "running" if self.answered_s is None else "over",
            "wall_s": end - self.received_s,
            "parts": self.parts(),
            "slow_reader_s": self.reading_s,
            "queued_behind": {"running": self.ahead_running, "waiting": self.ahead_waiting},
            "prompts": [_prompt(tracked) for tracked in self.requests],
        }

    def log(self) -> dict[str, Any]:
        """What the log says of it."""
        reasons = [c.finish_reason for tracked in self.requests for c in tracked.continuations]
        parts = self.parts()
        return {
            "id": self.request_id,
            "prompt_tokens": sum(len(tracked.submission.prompt_token_ids) for tracked in self.requests),
            "cached_tokens": sum(tracked.num_cached_tokens for tracked in self.requests),
            "output_tokens": sum(tracked.num_output_tokens for tracked in self.requests),
            "finish": ",".join(sorted({reason or "refused" for reason in reasons})),
            "restarts": max((tracked.num_restarts for tracked in self.requests), default=0),
            **{name: round(value, 6) for name, value in parts.items()},
        }


def _without_restarts(spans: dict[str, float], restarts_s: float) -> dict[str, float]:
    """Take what was spent without a process out of where it was spent, the latest first."""
    left = restarts_s
    for name in ("decode_s", "prefill_s", "queue_s"):
        taken = min(left, spans[name])
        spans[name] -= taken
        left -= taken
    return {**spans, "restart_s": restarts_s - left}


def _prompt(tracked: Tracked) -> dict[str, Any]:
    num_prompt = len(tracked.submission.prompt_token_ids)
    missed = tracked.num_cached_tokens if tracked.num_cached_tokens < num_prompt else None
    return {
        "prompt_tokens": num_prompt,
        "cached_tokens": tracked.num_cached_tokens,
        "first_token_not_cached": missed,
        "output_tokens": [len(continuation.token_ids) for continuation in tracked.continuations],
        "finish_reasons": [continuation.finish_reason for continuation in tracked.continuations],
        "num_preemptions": tracked.num_preemptions,
        "num_restarts": tracked.num_restarts,
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

    def is_open(self, request_id: str) -> bool:
        """Whether a request of that id runs."""
        return request_id in self._open
