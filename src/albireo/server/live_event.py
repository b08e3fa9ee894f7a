"""One event of /v1/stats: numbers in compact arrays, no text of prompts or answers.

Called by live.py. The fields are described in docs/serving.md.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albireo.engine_process.messages import Blocks, Stepped
from albireo.engine_process.tracked import Tracked

if TYPE_CHECKING:
    from albireo.server.serving import Serving

#: Bars that the steps of one event become, twice as many when prompts and answers are computed in turn.
MAX_BARS = 6
#: Requests told; the page shows the first of them.
MAX_REQUESTS = 256
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

Step = tuple[float, float, int, int]


@dataclass(slots=True)
class Gathered:
    """What happened since the last event.

    Fields:
        steps: (start, seconds, prompt tokens, output tokens).
        first_tokens: seconds from arrival to the first token; gaps: from a token to the next.
        last_step, picture: the newest there are.
    """

    steps: deque[Step]
    first_tokens: deque[float]
    gaps: deque[float]
    over: deque[Tracked]
    last_step: Stepped | None = None
    picture: Blocks | None = None

    def has_news(self) -> bool:
        """Whether anything happened."""
        return bool(self.steps or self.over)

    def start_anew(self) -> None:
        """An event was made of it."""
        for each in (self.steps, self.first_tokens, self.gaps, self.over):
            each.clear()

    def clear(self) -> None:
        """Nobody watches."""
        self.start_anew()
        self.last_step = self.picture = None


def make_event(serving: Serving, gathered: Gathered) -> dict[str, Any]:
    """One moment, and what led to it."""
    health, picture = serving.client.health, gathered.picture
    sequences = [] if picture is None else picture.sequences
    event = {
        "at_s": time.monotonic(),
        "state": "draining" if serving.is_draining else health.state,
        "loaded_frac": health.loaded_frac,
        "num_restarts": health.num_restarts,
        "engine": _engine(serving),
        "now": _now(serving, gathered),
        "steps": bars(gathered.steps, MAX_BARS),
        "first_token_s": [round(seconds, 5) for seconds in gathered.first_tokens],
        "token_gap_s": spread(gathered.gaps),
        "requests": [_request(tracked) for tracked in list(serving.client.requests.values())[:MAX_REQUESTS]],
        "over": [_over(tracked) for tracked in gathered.over],
        "kv": {
            "at_s": None if picture is None else round(picture.at_s, 4),
            "sequences": [
                [s.key, s.index, s.num_prompt, s.num_tokens, s.num_computed, s.num_cached, runs(s.blocks)]
                for s in sequences
            ],
            "cached": [] if picture is None else runs(sorted(picture.cached)),
        },
    }
    gathered.start_anew()
    return event


def runs(blocks: Sequence[int]) -> list[int]:
    """Block ids in order -> first, count, first, count …: blocks taken together mostly lie together."""
    found: list[int] = []
    following = -1
    for block in blocks:
        if block == following:
            found[-1] += 1
        else:
            found += (block, 1)
        following = block + 1
    return found


def bars(steps: Iterable[Step], most: int) -> list[list[float]]:
    """Steps, summed where there are many: (start, seconds, prompt tokens, output tokens, how many steps).

    Those that compute prompts are summed apart from the others, so that they stay visible. Returns: at most 2 * most.
    """
    all_steps = list(steps)
    size = -(-len(all_steps) // most) or 1
    found = []
    for start in range(0, len(all_steps), size):
        group = all_steps[start : start + size]
        for part in ([step for step in group if step[2]], [step for step in group if not step[2]]):
            if part:
                seconds, num_prompt, num_output = (sum(step[field] for step in part) for field in (1, 2, 3))
                found.append([round(part[0][0], 4), round(seconds, 6), num_prompt, num_output, len(part)])
    return found


def spread(values: Iterable[float]) -> list[float]:
    """Count, median, 95th percentile and largest; empty without values."""
    ordered = sorted(values)
    if not ordered:
        return []
    last = len(ordered) - 1
    return [len(ordered), *(round(ordered[int(last * part)], 6) for part in (0.5, 0.95, 1.0))]


def _engine(serving: Serving) -> dict[str, Any] | None:
    """What does not change while it runs."""
    ready = serving.client.ready
    if ready is None:
        return None
    return {
        "model": serving.names[0],
        "num_blocks": ready.num_blocks,
        "block_size": ready.block_size,
        "max_model_len": ready.max_model_len,
        "max_num_seqs": ready.max_num_seqs,
        "memory": ready.memory,
    }


def _now(serving: Serving, gathered: Gathered) -> dict[str, Any]:
    """How it stands after its last step."""
    step = gathered.last_step
    is_idle = step is None or not serving.client.requests
    return {
        "num_requests": len(serving.client.requests),
        "num_running": 0 if is_idle or step is None else step.num_running,
        "num_waiting": len(serving.client.requests) if step is None else 0 if is_idle else step.num_waiting,
        "num_swapped": 0 if is_idle or step is None else step.num_swapped,
        "kv_usage": 0.0 if is_idle or step is None else round(step.kv_usage, 5),
        "num_preemptions": 0 if step is None else step.num_preemptions,
        "cache_queries": 0 if step is None else step.cache_queries,
        "cache_hits": 0 if step is None else step.cache_hits,
        "engine_bytes": _resident_bytes(serving.client.pid),
        "server_bytes": _resident_bytes(os.getpid()),
    }


def _resident_bytes(pid: int | None) -> int:
    """Memory of a process; 0 when it is gone."""
    if pid is None:
        return 0
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _request(tracked: Tracked) -> dict[str, Any]:
    times = tracked.times
    return {
        "key": tracked.key,
        "id": tracked.request_id,
        "arrival_s": round(times.arrival_s, 4),
        "state": "waiting" if times.last_token_s is None else "running",
        "prompt_tokens": len(tracked.submission.prompt_token_ids),
        "cached_tokens": tracked.num_cached_tokens,
        "output_tokens": [len(continuation.token_ids) for continuation in tracked.continuations],
        "max_tokens": tracked.submission.params.max_tokens,
        "first_token_s": None if times.first_token_s is None else round(times.first_token_s - times.arrival_s, 5),
        "num_preemptions": tracked.num_preemptions,
        "num_restarts": tracked.num_restarts,
    }


def _over(tracked: Tracked) -> dict[str, Any]:
    times = tracked.times
    return {
        **_request(tracked),
        "state": "over",
        "finish_reasons": sorted({c.finish_reason or "error" for c in tracked.continuations}),
        "wall_s": None if times.last_token_s is None else round(times.last_token_s - times.arrival_s, 5),
    }
