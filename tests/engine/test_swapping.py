"""Swapping: what a preempted sequence had computed is kept in host memory, and comes back."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.engine.block_tables import BlockTables
from albireo.engine.host_pool import HostPool
from albireo.engine.request import HostBlock
from albireo.errors import InvariantError
from albireo.step import StepPlan


def pressed(bench: Any, **kwargs: Any) -> Any:
    """Two requests of 39 tokens each, in 6 blocks of 8; the second is preempted with a block that is not full."""
    run = bench(**{"num_blocks": 7, "max_model_len": 49, "num_host_blocks": 6, **kwargs})
    run.add([1] * 22, max_tokens=18)
    run.add([2] * 18, max_tokens=22)
    return run


def until_swapped(run: Any) -> None:
    while not run.engine.stats().num_requests_swapped:
        run.step()


@pytest.mark.parametrize("has_cache", [True, False])
def test_nothing_is_computed_twice(bench: Any, has_cache: bool) -> None:
    run = pressed(bench, enable_prefix_caching=has_cache)
    run.run()
    stats = run.engine.stats()
    assert stats.num_swap_outs == stats.num_preemptions > 0
    assert stats.num_computed_tokens == 2 * 39
    assert run.toy.num_swapped_in > 0
    assert (stats.num_requests_swapped, stats.cpu_cache_usage) == (0, 0.0)
    run.check_all_ended()


def test_without_host_blocks_it_is(bench: Any) -> None:
    run = pressed(bench, num_host_blocks=0, enable_prefix_caching=False)
    run.run()
    stats = run.engine.stats()
    assert stats.num_preemptions > 0 and stats.num_swap_outs == 0 == run.toy.num_swapped_in
    assert stats.num_computed_tokens > 2 * 39


@pytest.mark.parametrize(("num_host_blocks", "cost"), [(2, 0.0), (6, 8.0)], ids=["no room", "too dear"])
def test_what_is_not_worth_it_is_computed_again(bench: Any, num_host_blocks: int, cost: float) -> None:
    run = pressed(bench, num_host_blocks=num_host_blocks, swap_cost_tokens=cost)
    run.run()
    assert run.engine.stats().num_preemptions > 0 and run.engine.stats().num_swap_outs == 0
    run.check_all_ended()


def test_a_swapped_sequence_waits_in_its_own_count(bench: Any) -> None:
    run = pressed(bench)
    until_swapped(run)
    stats = run.engine.stats()
    assert (stats.num_requests_running, stats.num_requests_swapped, stats.num_requests_waiting) == (1, 1, 0)
    assert stats.cpu_cache_usage == 3 / 6


def test_blocks_that_are_still_there_are_not_brought_back(bench: Any) -> None:
    """The first sequence ends at once, so most of the second's blocks were given to nobody."""
    run = pressed(bench)
    until_swapped(run)
    num_had = round(run.engine.stats().cpu_cache_usage * 6)
    run.abort("0")
    run.step()
    assert 0 < run.toy.num_swapped_in < num_had
    run.run()
    run.check_all_ended()


def test_others_find_what_came_back(bench: Any) -> None:
    """The first sequence takes every block; what is swapped in then is known to the prefix cache, in the very step."""
    run = bench(num_blocks=7, max_model_len=49, num_host_blocks=6)
    run.add([1] * 22, max_tokens=20)
    run.add([2] * 18, max_tokens=22)
    until_swapped(run)
    run.add([2] * 18, max_tokens=1)
    run.run()
    assert run.toy.num_swapped_in >= 3
    assert run.last["2"].progress.num_cached_tokens == 16
    run.check_all_ended()


@pytest.mark.parametrize("fail", ["before", "within"])
def test_a_failed_step_loses_what_it_was_to_swap_out(bench: Any, step_failed: type[Exception], fail: str) -> None:
    run = pressed(bench)
    while True:
        before = run.engine.stats().num_preemptions
        with pytest.raises(step_failed):
            run.step(fail=fail)
        if run.engine.stats().num_preemptions > before:
            break
        run.step()
    stats = run.engine.stats()
    assert (stats.num_requests_swapped, stats.num_requests_waiting, stats.cpu_cache_usage) == (0, 1, 0.0)
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize("fail", ["before", "within"])
def test_a_failed_step_keeps_what_it_was_to_swap_in(bench: Any, step_failed: type[Exception], fail: str) -> None:
    run = pressed(bench)
    until_swapped(run)
    held = run.engine.stats().cpu_cache_usage
    run.abort("0")
    with pytest.raises(step_failed):
        run.step(fail=fail)
    assert (run.engine.stats().num_requests_swapped, run.engine.stats().cpu_cache_usage) == (1, held)
    run.run()
    assert run.engine.stats().num_computed_tokens < 2 * 39
    run.check_all_ended()


def test_an_abort_while_swapped_lets_host_blocks_go(bench: Any) -> None:
    run = pressed(bench)
    until_swapped(run)
    assert len(run.abort("1")) == 1
    assert (run.engine.stats().num_requests_swapped, run.engine.stats().cpu_cache_usage) == (0, 0.0)
    run.run()
    run.check_all_ended()


def test_another_engine_goes_on_with_what_was_swapped(bench: Any) -> None:
    """Host blocks die with their engine; the tokens do not."""
    first, second = pressed(bench), bench()
    until_swapped(first)
    first.step()
    for name in "01":
        second.tokens[name, 0] = known = list(first.tokens[name, 0])
        prompt, params = first.added[name]
        second.add(prompt, name, max_tokens=params.max_tokens, earlier=[known])
    second.run()
    second.check_all_ended()


def test_blocks_others_hold_are_not_worth_moving(bench: Any) -> None:
    """Continuations share the prompt's blocks, which are found again: only what is their own counts."""
    run = bench(num_blocks=14, max_model_len=57, num_host_blocks=20, swap_cost_tokens=4.0)
    run.add([1] * 40, max_tokens=17, n=5)
    run.run()
    assert run.engine.stats().num_preemptions > 0 and run.engine.stats().num_swap_outs == 0
    run.check_all_ended()


def test_a_pool_says_what_is_wrong(bench: Any) -> None:
    run = bench()
    run.add([1] * 20, max_tokens=5)
    run.step()
    (seq,) = run.engine.blocks()[0]
    tables = BlockTables(9, 8)
    pool = HostPool(2, tables)
    with pytest.raises(InvariantError, match=r"swapped out to 2 host blocks, needs 3"):
        pool.swap_out(seq, StepPlan(0, [], 0))
    pool = HostPool(4, tables)
    pool.swap_out(seq, StepPlan(0, [], 0))
    with pytest.raises(InvariantError, match=r"is RUNNING and has host blocks .* for 20 tokens"):
        pool.check_invariants([seq])
    pool.roll_back()
    pool.check_invariants([seq])
    seq.host_blocks = [HostBlock(0, 0, 3)]
    with pytest.raises(InvariantError, match="do not partition 4"):
        pool.check_invariants([seq])
