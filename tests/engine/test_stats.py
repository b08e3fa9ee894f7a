"""Stats: the counters count what they say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from albireo.engine.stats import Counters, snapshot


def test_snapshot_is_frozen_and_shares_nothing() -> None:
    counters = Counters()
    before = snapshot(counters, num_running=1, num_waiting=2, kv_cache_usage=0.5)
    counters.num_steps += 1
    counters.finished["stop"] += 1
    assert (before.num_steps, before.finished["stop"]) == (0, 0)
    assert (before.num_requests_running, before.num_requests_waiting, before.kv_cache_usage) == (1, 2, 0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.num_steps = 3  # type: ignore[misc]


def test_snapshot_carries_every_counter() -> None:
    counters = Counters()
    for number, field in enumerate(dataclasses.fields(Counters), 1):
        if isinstance(getattr(counters, field.name), int):
            setattr(counters, field.name, number)
    taken = dataclasses.asdict(snapshot(counters, num_running=0, num_waiting=0, kv_cache_usage=0.0))
    assert {name: taken[name] for name in dataclasses.asdict(counters)} == dataclasses.asdict(counters)


def test_what_is_running_waiting_and_held(bench: Any) -> None:
    run = bench(num_blocks=11, max_num_seqs=2, max_model_len=60)
    for start in range(3):
        run.add([start] * 9, max_tokens=3)
    assert run.engine.stats().num_requests_waiting == 3
    run.step()
    stats = run.engine.stats()
    assert (stats.num_requests_running, stats.num_requests_waiting, stats.kv_cache_usage) == (2, 1, 0.4)


def test_totals_of_a_run(bench: Any, step_failed: type[Exception]) -> None:
    run = bench()
    run.add([1] * 20, max_tokens=4)
    with pytest.raises(step_failed):
        run.step(fail="before")
    run.run()
    run.add([1] * 20, max_tokens=4, n=2)
    run.run()
    run.abort(run.add([1] * 5))
    stats = run.engine.stats()
    assert (stats.num_steps, stats.num_failed_steps, stats.num_preemptions) == (8, 1, 0)
    assert (stats.prompt_tokens, stats.generation_tokens) == (40, 12)
    assert stats.num_computed_tokens == (20 + 3) + (4 + 2 * 3)
    assert (stats.prefix_cache_queries, stats.prefix_cache_hits) == (40, 16)
    assert stats.finished == {"stop": 0, "length": 3, "abort": 1, "error": 0, "repetition": 0}
