"""What the engine has done so far and holds now: counters, and a snapshot of them.

Filled by engine.py and scheduler.py, read by front doors. Does not know exporters or units of time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from albireo.outputs import FinishReason


@dataclass(slots=True)
class Counters:
    """Running totals since the engine started; names as in EngineStats."""

    num_steps: int = 0
    num_failed_steps: int = 0
    num_preemptions: int = 0
    num_swap_outs: int = 0
    num_computed_tokens: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    num_accepted_tokens_per_pos: list[int] = field(default_factory=list)
    finished: dict[FinishReason, int] = field(default_factory=lambda: dict.fromkeys(get_args(FinishReason), 0))


@dataclass(frozen=True, slots=True)
class EngineStats:
    """One moment. Continuations count one each, as in vLLM, where each is a request of its own.

    Fields:
        num_requests_running, num_requests_waiting: continuations with, without KV blocks; those of an n > 1 request
            whose prompt is not computed yet are counted in neither.
        num_requests_swapped: without KV blocks, but with blocks in host memory; not counted as waiting.
        kv_cache_usage: fraction of the blocks that are in tables, in [0, 1]; cached blocks count as free.
        cpu_cache_usage: fraction of the blocks of host memory that are taken; 0 where there are none.
        num_swap_outs: preemptions that moved blocks to host memory.
        num_computed_tokens: tokens that went through the model, recomputed ones included.
        prompt_tokens: of requests whose prompt is complete; generation_tokens: drawn.
        prefix_cache_queries, prefix_cache_hits: tokens looked up and found, at each admission.
        num_drafts: times that a continuation had drafts in a step; num_draft_tokens: drafts; num_accepted_tokens: those
            that came true; num_accepted_tokens_per_pos: the same by their place among the drafts of a step.
        finished: finish reason -> continuations.
    """

    num_requests_running: int
    num_requests_waiting: int
    num_requests_swapped: int
    kv_cache_usage: float
    cpu_cache_usage: float
    num_steps: int
    num_failed_steps: int
    num_preemptions: int
    num_swap_outs: int
    num_computed_tokens: int
    prompt_tokens: int
    generation_tokens: int
    prefix_cache_queries: int
    prefix_cache_hits: int
    num_drafts: int
    num_draft_tokens: int
    num_accepted_tokens: int
    num_accepted_tokens_per_pos: list[int]
    finished: dict[FinishReason, int]


def snapshot(
    counters: Counters,
    *,
    num_running: int,
    num_waiting: int,
    kv_cache_usage: float,
    num_swapped: int = 0,
    cpu_cache_usage: float = 0.0,
) -> EngineStats:
    """Freeze the counters together with what is held now; the result shares nothing with them."""
    return EngineStats(
        num_requests_running=num_running,
        num_requests_waiting=num_waiting,
        num_requests_swapped=num_swapped,
        kv_cache_usage=kv_cache_usage,
        cpu_cache_usage=cpu_cache_usage,
        num_steps=counters.num_steps,
        num_failed_steps=counters.num_failed_steps,
        num_preemptions=counters.num_preemptions,
        num_swap_outs=counters.num_swap_outs,
        num_computed_tokens=counters.num_computed_tokens,
        prompt_tokens=counters.prompt_tokens,
        generation_tokens=counters.generation_tokens,
        prefix_cache_queries=counters.prefix_cache_queries,
        prefix_cache_hits=counters.prefix_cache_hits,
        num_drafts=counters.num_drafts,
        num_draft_tokens=counters.num_draft_tokens,
        num_accepted_tokens=counters.num_accepted_tokens,
        num_accepted_tokens_per_pos=list(counters.num_accepted_tokens_per_pos),
        finished=dict(counters.finished),
    )
