"""One event of /v1/stats: numbers in compact arrays, no text of prompts or answers.

Called by live.py. The fields are described in docs/serving.md.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from albireo.engine_process.messages import Blocks, SequenceBlocks, Stepped
from albireo.engine_process.tracked import Tracked
from albireo.image_input import MEDIA_KINDS
from albireo.replicas.replicas import Replicas
from albireo.server.settings import ServerSettings
from albireo.system import resident_bytes

#: Bars that the steps of one event become, twice as many when prompts and answers are computed in turn.
MAX_BARS = 6
#: Requests told; the page shows the first of them.
MAX_REQUESTS = 256

#: What is told of each engine and, summed, of all.
_SUMMED = ("num_running", "num_waiting", "num_swapped", "engine_bytes")

Step = tuple[float, float, int, int]


class Watched(Protocol):
    """What an event tells of: the server's engines (serving.py)."""

    client: Replicas
    settings: ServerSettings
    is_draining: bool

    @property
    def names(self) -> tuple[str, ...]:
        """What the model answers to."""


@dataclass(slots=True)
class Gathered:
    """What happened since the last event.

    Fields:
        steps: (start, seconds, prompt tokens, output tokens).
        first_tokens: seconds from arrival to the first token; gaps: from a token to the next.
        last_steps, pictures: the newest there are, by engine.
    """

    steps: deque[Step]
    first_tokens: deque[float]
    gaps: deque[float]
    over: deque[Tracked]
    last_steps: dict[int, Stepped] = field(default_factory=dict)
    pictures: dict[int, Blocks] = field(default_factory=dict)

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
        self.last_steps.clear()
        self.pictures.clear()


def make_event(serving: Watched, gathered: Gathered) -> dict[str, Any]:
    """One moment, and what led to it."""
    health = serving.client.health
    event = {
        "at_s": time.monotonic(),
        "state": "draining" if serving.is_draining else health.state,
        "loaded_frac": health.loaded_frac,
        "num_restarts": health.num_restarts,
        "engine": _engine(serving),
        "now": _now(serving, gathered),
        "engines": [_one(serving, gathered, index) for index in range(len(serving.client.engines))],
        "steps": bars(gathered.steps, MAX_BARS),
        "first_token_s": [round(seconds, 5) for seconds in gathered.first_tokens],
        "token_gap_s": spread(gathered.gaps),
        "requests": [_request(tracked) for tracked in list(serving.client.requests.values())[:MAX_REQUESTS]],
        "over": [_over(tracked) for tracked in gathered.over],
        "kv": _kv(serving, gathered),
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
                seconds, num_prompt, num_output = (sum(step[place] for step in part) for place in (1, 2, 3))
                found.append([round(part[0][0], 4), round(seconds, 6), num_prompt, num_output, len(part)])
    return found


def spread(values: Iterable[float]) -> list[float]:
    """Count, median, 95th percentile and largest; empty without values."""
    ordered = sorted(values)
    if not ordered:
        return []
    last = len(ordered) - 1
    return [len(ordered), *(round(ordered[int(last * part)], 6) for part in (0.5, 0.95, 1.0))]


def _kv(serving: Watched, gathered: Gathered) -> dict[str, Any]:
    """The KV caches, as if they were one: the blocks of each engine behind those of the one before."""
    sequences: list[list[Any]] = []
    cached: list[int] = []
    states: list[tuple[int, int, int]] = []
    keys = {tracked.ticket: tracked.key for tracked in serving.client.requests.values()}
    num_blocks = 0 if serving.client.ready is None else serving.client.ready.num_blocks
    for index, picture in sorted(gathered.pictures.items()):
        if serving.client.engines[index].health.state != "ready":
            continue  # its process, and its blocks, are gone
        # Block 0 of each is never handed out; the first one's stands for all.
        offset = index * (num_blocks - 1)
        sequences += (
            [
                keys.get(s.key, s.key), s.index, s.num_prompt, s.num_tokens, s.num_computed, s.num_cached,
                *_tables(s, offset),
            ]
            for s in picture.sequences
        )  # fmt: skip
        cached += runs([block + offset for block in sorted(picture.cached)])
        states += [] if picture.states is None else [picture.states]
    at_s = max((picture.at_s for picture in gathered.pictures.values()), default=None)
    found = {"at_s": None if at_s is None else round(at_s, 4), "sequences": sequences, "cached": cached}
    return found | ({"states": [sum(each) for each in zip(*states, strict=True)]} if states else {})


def _tables(held: SequenceBlocks, offset: int) -> Iterator[list[Any]]:
    """Runs of blocks; and where there are several groups, or a window has left some, of each group its first place and
    its runs."""
    tables = [held.blocks, *held.others]
    places = [table.count(0) for table in tables]
    found = [runs([block + offset for block in table[first:]]) for table, first in zip(tables, places, strict=True)]
    yield found[0]
    if len(tables) > 1 or places[0]:
        yield [[first, blocks] for first, blocks in zip(places, found, strict=True)]


def _engine(serving: Watched) -> dict[str, Any] | None:
    """What does not change while they run; sizes are those of all engines."""
    ready, num = serving.client.ready, len(serving.client.engines)
    if ready is None:
        return None
    return {
        "model": serving.names[0],
        "num_engines": num,
        "num_blocks": 1 + num * (ready.num_blocks - 1),
        "block_size": ready.block_size,
        "max_model_len": ready.max_model_len,
        "max_num_seqs": num * ready.max_num_seqs,
        "reads_images": not ready.image_problem,
        # what begins with a sound writes it down, and takes no chats
        "hears_sounds": not (ready.sound_problem or ready.sound_positions),
        "memory": {name: num * size for name, size in ready.memory.items()},
    }


def _now(serving: Watched, gathered: Gathered) -> dict[str, Any]:
    """How all stand after their last steps."""
    engines = [_one(serving, gathered, index) for index in range(len(serving.client.engines))]
    steps = gathered.last_steps.values()
    sums = {name: sum(each[name] for each in engines) for name in _SUMMED}
    return {
        "num_requests": len(serving.client.requests),
        **sums,
        "kv_usage": round(sum(each["kv_usage"] for each in engines) / len(engines), 5),
        "num_preemptions": sum(step.num_preemptions for step in steps),
        "cache_queries": sum(step.cache_queries for step in steps),
        "cache_hits": sum(step.cache_hits for step in steps),
        "server_bytes": resident_bytes(os.getpid()),
    }


def _one(serving: Watched, gathered: Gathered, index: int) -> dict[str, Any]:
    """How one engine stands after its last step."""
    engine, step = serving.client.engines[index], gathered.last_steps.get(index)
    num_requests = len(engine.requests)
    is_idle = step is None or not num_requests
    return {
        "state": engine.health.state,
        "pid": engine.pid,
        "num_restarts": engine.health.num_restarts,
        "num_running": 0 if is_idle or step is None else step.num_running,
        "num_waiting": num_requests if step is None else 0 if is_idle else step.num_waiting,
        "num_swapped": 0 if is_idle or step is None else step.num_swapped,
        "kv_usage": 0.0 if is_idle or step is None else round(step.kv_usage, 5),
        "engine_bytes": 0 if engine.pid is None else resident_bytes(engine.pid),
    }


def _request(tracked: Tracked) -> dict[str, Any]:
    times = tracked.times
    return {
        "key": tracked.key,
        "id": tracked.request_id,
        "arrival_s": round(times.arrival_s, 4),
        "state": "waiting" if times.last_token_s is None else "running",
        "prompt_tokens": len(tracked.submission.prompt_token_ids),
        **{f"num_{kind}s": sum(image.kind == kind for image in tracked.submission.images) for kind in MEDIA_KINDS},
        "cached_tokens": tracked.num_cached_tokens,
        "output_tokens": [len(continuation.token_ids) for continuation in tracked.continuations],
        "max_tokens": tracked.submission.params.max_tokens,
        "first_token_s": None if times.first_token_s is None else round(times.first_token_s - times.arrival_s, 5),
        "num_preemptions": tracked.num_preemptions,
        "num_restarts": tracked.num_restarts,
        "engine": tracked.replica,
    }


def _over(tracked: Tracked) -> dict[str, Any]:
    times = tracked.times
    return {
        **_request(tracked),
        "state": "over",
        "finish_reasons": sorted({c.finish_reason or "error" for c in tracked.continuations}),
        "wall_s": None if times.last_token_s is None else round(times.last_token_s - times.arrival_s, 5),
    }
