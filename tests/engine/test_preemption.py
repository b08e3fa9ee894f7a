"""Preemption: who goes, and that all come back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from albireo.engine.preemption import choose_method, choose_victim


def test_the_last_in_order_goes() -> None:
    running: Any = [SimpleNamespace(order=(0, arrival, 0)) for arrival in range(3)]
    assert choose_victim(running) is running[2]


@pytest.mark.parametrize(
    ("num_alone", "num_blocks", "num_free", "block_cost", "wanted"),
    [
        (40, 5, 5, 0.0, "swap"),
        (40, 5, 4, 0.0, "recompute"),  # no room for all of it
        (0, 0, 9, 0.0, "recompute"),  # nothing is computed yet
        (0, 5, 9, 0.0, "recompute"),  # others hold all of it
        (40, 5, 9, 7.9, "swap"),
        (40, 5, 9, 8.0, "recompute"),  # as dear to move
        (40, 5, 0, 0.0, "recompute"),  # there is no host memory
    ],
)
def test_swapped_is_what_costs_more_to_compute_again_than_to_move(
    num_alone: int, num_blocks: int, num_free: int, block_cost: float, wanted: str
) -> None:
    found = choose_method(num_alone=num_alone, num_blocks=num_blocks, num_free=num_free, block_cost=block_cost)
    assert found == wanted


def test_last_arrived_is_preempted_and_recomputes_what_it_had(bench: Any) -> None:
    run = bench(num_blocks=8, max_model_len=57)
    run.add([1] * 20, max_tokens=20)
    run.add([2] * 20, max_tokens=20)
    run.run()
    preempted = [run.last[request_id].progress.metrics.num_preemptions for request_id in "01"]
    assert preempted[0] == 0 and preempted[1] == run.engine.stats().num_preemptions > 0
    # The clock ticks twice a step.
    waited = [run.last[request_id].progress.metrics.preempted_s for request_id in "01"]
    assert waited == [0.0, 2.0 * sum(1 not in plan for plan in run.toy.plans)]
    run.check_all_ended()


def test_recompute_finds_its_own_blocks_in_the_prefix_cache(bench: Any) -> None:
    run = bench(num_blocks=8, max_model_len=57)
    run.add([1] * 20, max_tokens=20)
    run.add([2] * 20, max_tokens=20)
    run.run()
    stats = run.engine.stats()
    assert stats.num_preemptions > 0
    assert stats.num_computed_tokens < 2 * 39 + 20
    assert stats.prefix_cache_hits > 0


def test_worst_priority_is_preempted_whenever_it_arrived(bench: Any) -> None:
    run = bench(num_blocks=8, max_model_len=57, scheduling_policy="priority")
    run.add([1] * 20, max_tokens=20, priority=5)
    run.add([2] * 20, max_tokens=20, priority=1)
    run.run()
    assert run.last["0"].progress.metrics.num_preemptions > 0
    assert run.last["1"].progress.metrics.num_preemptions == 0
    run.check_all_ended()


def test_waiting_request_of_better_priority_takes_blocks_when_they_run_out(bench: Any) -> None:
    run = bench(num_blocks=8, max_model_len=57, scheduling_policy="priority")
    run.add([1] * 30, max_tokens=20, priority=1)
    run.step()
    run.add([2] * 30, max_tokens=4, priority=1)
    run.step()
    assert set(run.toy.plans[-1]) == {0}, "equal priority waits"
    run.add([3] * 30, max_tokens=4, priority=0)
    run.step()
    assert set(run.toy.plans[-1]) == {2}
    run.run()
    assert list(run.last) == ["2", "0", "1"]
    run.check_all_ended()


def test_waiting_request_of_better_priority_takes_no_seat(bench: Any) -> None:
    run = bench(max_num_seqs=1, scheduling_policy="priority")
    run.add([1] * 30, max_tokens=5, priority=1)
    run.step()
    run.add([2] * 30, max_tokens=5, priority=0)
    run.run()
    assert run.engine.stats().num_preemptions == 0
    assert list(run.last) == ["0", "1"]
