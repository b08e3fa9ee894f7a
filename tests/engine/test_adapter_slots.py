"""Adapters share slots: who has which, who waits, and that nobody waits for ever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albireo.engine.adapter_slots import NO_SLOT, AdapterSlots
from albireo.engine.prefix_cache import root_key
from albireo.errors import InvariantError
from albireo.params import PoolingParams
from albireo.speculative_config import SpeculativeConfig

PROMPT = list(range(1, 18))


def check(run: Any, adapters: dict[str, int | None], num_slots: int) -> None:
    """Every sequence ran with its own adapter, in every step, and no step had more than there are slots."""
    own = {int(request): adapter for request, adapter in adapters.items()}
    for step in run.toy.adapters:
        assert all(own[seq_id] == adapter for seq_id, adapter in step.items()), step
        assert len({adapter for adapter in step.values() if adapter is not None}) <= num_slots
    run.check_all_ended()


def ran(run: Any) -> list[set[int]]:
    """Sequences of each step."""
    return [set(step) for step in run.toy.adapters]


def test_each_runs_in_the_slot_of_its_adapter(bench: Any) -> None:
    run = bench(num_adapter_slots=2)
    adapters = {
        run.add([*PROMPT, i], max_tokens=4, adapter=adapter): adapter for i, adapter in enumerate([5, None, 9, 5])
    }
    run.run()
    assert ran(run)[0] == {0, 1, 2, 3}
    check(run, adapters, 2)


def test_who_finds_no_slot_waits_and_is_passed_by_those_that_need_none(bench: Any) -> None:
    run = bench(num_adapter_slots=1)
    wanted = [5, 9, None, 5]
    adapters = {run.add([i + 1] * 9, max_tokens=3, adapter=adapter): adapter for i, adapter in enumerate(wanted)}
    run.run()
    # the last has the adapter that is there, and came after one that waits for the slot
    assert ran(run)[:4] == [{0, 2}, {0, 2}, {0, 2}, {1}]
    check(run, adapters, 1)


def test_a_stream_of_requests_with_one_adapter_does_not_keep_another_waiting(bench: Any) -> None:
    run = bench(num_adapter_slots=1, max_num_seqs=4)
    adapters: dict[str, int | None] = {run.add([1, 2], max_tokens=6, adapter=1): 1}
    run.step()
    adapters[run.add([3, 4], max_tokens=6, adapter=2)] = 2
    for i in range(40):
        adapters[run.add([5, i % 30], max_tokens=6, adapter=1 if i % 3 else None)] = 1 if i % 3 else None
        run.step()
        if "1" in run.last:
            break
    assert "1" in run.last and len(adapters) < 16
    run.run()
    check(run, adapters, 1)


def test_a_step_does_not_look_through_all_that_wait_for_a_slot(bench: Any) -> None:
    run = bench(num_adapter_slots=1, max_num_seqs=4)
    adapters: dict[str, int | None] = {
        run.add([1 + i % 30, 2], max_tokens=9, adapter=adapter): adapter
        for i, adapter in enumerate([1, *[2] * 80, None])
    }
    scheduler = run.engine._scheduler
    asked: list[Any] = []
    find = scheduler.places.slot
    scheduler.places.slot = lambda seq: (asked.append(seq), find(seq))[1]
    run.step()
    assert ran(run)[-1] == {0, 81} and len(asked) <= 4
    del scheduler.places.slot
    run.run()
    check(run, adapters, 1)


def test_the_slot_that_was_used_longest_ago_is_given_away(bench: Any) -> None:
    run = bench(num_adapter_slots=2)
    for i, adapter in enumerate((1, 2, 1, 3, 1)):
        run.add([i + 1, 3], max_tokens=2, adapter=adapter)
        run.run()
    assert run.engine._scheduler.places.adapters.held == [1, 3]
    run.add([9, 3], max_tokens=2, adapter=2)
    run.run()
    assert run.engine._scheduler.places.adapters.held == [1, 2]


def test_blocks_are_found_by_requests_of_the_same_adapter_only(bench: Any) -> None:
    run = bench(num_adapter_slots=3)
    order = [1, None, 2, 1, None, 2]
    for adapter in order:
        run.add(PROMPT, max_tokens=1, adapter=adapter)
        run.run()
    assert [run.last[str(i)].progress.num_cached_tokens for i in range(6)] == [0, 0, 0, 16, 16, 16]
    assert len({root_key(salt, adapter) for salt in (None, "a") for adapter in (None, 1, 2)}) == 6
    assert root_key(None) == bytes(32)


def test_siblings_and_embeddings_have_it_too(bench: Any) -> None:
    run = bench(num_adapter_slots=1, max_num_batched_tokens=8)
    run.add(PROMPT, max_tokens=4, n=3, adapter=4)
    run.add(PROMPT, pooling=PoolingParams(pooling_type="mean"), adapter=4)
    run.run()
    assert {adapter for step in run.toy.adapters for adapter in step.values()} == {4}
    assert ran(run)[-1] and set().union(*ran(run)) == {0, 1, 2, 3}
    run.check_all_ended()


def test_what_runs_and_what_waits_is_told(bench: Any) -> None:
    run = bench(num_adapter_slots=1)
    run.add([1, 2], max_tokens=3, adapter=7)
    run.add([1, 3], max_tokens=3, adapter=8)
    run.add([1, 3], max_tokens=3)
    run.step()
    assert run.engine.adapters() == ({7}, {7, 8})
    run.run()
    assert run.engine.adapters() == (set(), set())


def test_an_adapter_where_there_are_no_slots_is_a_bug(bench: Any) -> None:
    run = bench()
    with pytest.raises(InvariantError, match="no slots"):
        run.add([1, 2], adapter=1)
    assert AdapterSlots(0).find(None, []) == NO_SLOT


@settings(max_examples=60)
@given(data=st.data())
def test_any_mix_is_served_right(bench: Any, step_failed: type[Exception], data: st.DataObject) -> None:
    """Few blocks, so that sequences are preempted; steps that fail; priorities; drafts."""
    num_slots = data.draw(st.integers(1, 3))
    run = bench(
        num_adapter_slots=num_slots,
        num_blocks=data.draw(st.integers(6, 12)),
        max_num_seqs=data.draw(st.integers(1, 5)),
        max_num_batched_tokens=data.draw(st.integers(1, 40)),
        scheduling_policy="priority",
        speculative=data.draw(st.sampled_from([None, SpeculativeConfig(method="ngram", num_speculative_tokens=2)])),
    )
    adapters: dict[str, int | None] = {}
    for _ in range(data.draw(st.integers(1, 9))):
        adapter = data.draw(st.sampled_from([None, 1, 2, 3, 4]))
        prompt = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=20))
        request = run.add(
            prompt, max_tokens=data.draw(st.integers(1, 9)), adapter=adapter, priority=data.draw(st.integers(0, 2))
        )
        adapters[request] = adapter
        for _ in range(data.draw(st.integers(0, 2))):
            fails = data.draw(st.sampled_from([None, None, None, "before", "within"]))
            if not run.engine.has_work():
                continue
            try:
                run.step(fails)
            except step_failed:
                assert fails
    run.run()
    check(run, adapters, num_slots)
