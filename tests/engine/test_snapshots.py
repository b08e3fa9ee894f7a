"""Snapshots of states: where they are taken, who goes on from them, and which have to go.

On the toy device of conftest.py, whose layer that keeps a state fails where that is not what the sequence has computed;
blocks are of 8.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from albireo.engine.state_slots import StateSlots
from albireo.step import SequenceWork

STEM = [(i * 7) % 39 + 1 for i in range(40)]
SLOTS = {"num_state_slots": 12, "max_num_seqs": 4}


def told_apart(i: int) -> list[int]:
    """20 tokens that begin as no other's do."""
    return [(i * 5 + j * (i + 2)) % 39 + 1 for j in range(20)]


def computed(run: Any, prompt: list[int], **params: Any) -> tuple[int, int]:
    """Tokens computed for a request, and those it found."""
    before = run.toy.num_computed_tokens
    request_id = run.add(prompt, **params)
    run.run()
    return run.toy.num_computed_tokens - before, run.last[request_id].progress.num_cached_tokens


def keys(run: Any) -> int:
    return len(run.engine._scheduler.places.states._snapshots)


def test_the_next_turn_goes_on_where_the_answer_ended(bench: Any) -> None:
    """And one that drops the answer, or asks again, where the prompt did, but for its last tokens."""
    run = bench(**SLOTS)
    assert run.engine.state_slots() == (0, 0, 12) and bench().engine.state_slots() is None
    assert computed(run, STEM, max_tokens=12) == (40 + 11, 0)
    assert run.toy.snapshots == [(0, 32), (0, 48)]
    assert run.engine.state_slots() == (0, 2, 12)
    answer = run.tokens["0", 0]
    assert computed(run, [*STEM, *answer, 5, 6, 7], max_tokens=1) == (55 - 48, 48)
    assert computed(run, STEM, max_tokens=1) == (8, 32)
    assert computed(run, [*STEM[:34], 1, 2], max_tokens=1) == (4, 32)
    run.check_all_ended()


def test_where_prompts_part_the_second_leaves_a_snapshot_for_the_third(bench: Any) -> None:
    run = bench(**SLOTS)
    found = [computed(run, STEM + told_apart(i), max_tokens=1) for i in range(4)]
    assert found == [(60, 0), (60, 0), (20, 40), (20, 40)]
    assert (1, 40) in run.toy.snapshots
    assert run.toy.plans[1][1] == (0, 40, 0), "the step ends there"
    run.check_all_ended()


def test_prompts_that_come_together_share_what_they_begin_with(bench: Any) -> None:
    """The first computes it for itself, the second to leave it, and the others find it."""
    run = bench(**SLOTS, max_num_batched_tokens=512)
    for i in range(4):
        run.add(STEM + told_apart(i), max_tokens=2)
    run.run()
    assert run.toy.num_computed_tokens == 60 + 60 + 20 + 20 + 4
    run.check_all_ended()


def test_little_that_is_shared_is_not_worth_a_step(bench: Any) -> None:
    run = bench(**SLOTS)
    assert [computed(run, STEM[:31] + told_apart(i), max_tokens=1) for i in range(3)] == [(51, 0), (51, 0), (51, 0)]
    assert len(run.toy.plans) == 3


@pytest.mark.parametrize("how", ["before", "within"])
def test_a_failed_step_costs_what_came_behind_the_snapshots(bench: Any, step_failed: type[Exception], how: str) -> None:
    run = bench(**SLOTS, max_num_batched_tokens=512)
    for i in range(3):
        run.add(told_apart(i) * 3, max_tokens=20)
    for _ in range(14):
        run.step()
    before = run.toy.num_computed_tokens
    with pytest.raises(step_failed):
        run.step(fail=how)
    run.run()
    run.check_all_ended()
    # prompts of 60 and 20 tokens, the last not computed; 13 were out, and there is a snapshot behind token 72 of each
    assert run.toy.num_computed_tokens - before == 3 * (79 - 72)


def test_a_snapshot_takes_the_place_of_the_one_before(bench: Any) -> None:
    """Of what is decoded the newest stays; within a prompt those behind chunks are the first to go."""
    run = bench(**SLOTS, max_num_batched_tokens=16)
    run.add(STEM, max_tokens=40)
    run.run()
    # behind 16 and 32 tokens of the prompt, which ends no later than 8 before its end, and behind 72 of 79
    assert [at for _, at in run.toy.snapshots] == [16, 32, 48, 56, 64, 72]
    states, cache = run.engine._scheduler.places.states, run.engine._scheduler.places.cache
    assert keys(run) == 3
    run.add([*STEM, *run.tokens["0", 0]], max_tokens=1)
    (waiting,) = run.engine._scheduler.places.waiting.members
    assert list(states._snapshots) == [cache.key_at(waiting, at) for at in (16, 32, 72)]


def test_the_one_unused_for_longest_goes_first(bench: Any) -> None:
    """Five slots: one runs, one is held for the next snapshot."""
    run = bench(num_state_slots=5, max_num_seqs=1)
    prompts = [told_apart(i) * 2 for i in range(6)]
    for prompt in prompts[:4]:
        assert computed(run, prompt, max_tokens=1) == (40, 0)
    assert computed(run, prompts[0], max_tokens=1) == (8, 32)
    for prompt in prompts[4:]:
        assert computed(run, prompt, max_tokens=1) == (40, 0)
    found = [computed(run, prompt, max_tokens=1)[1] for prompt in (prompts[0], prompts[1])]
    assert found == [32, 0]
    run.check_all_ended()


def test_whoever_runs_comes_before_snapshots(bench: Any) -> None:
    """One slot beside those of the seats: a snapshot is taken where nobody is kept from running by it."""
    run = bench(num_state_slots=4, max_num_seqs=3)
    assert computed(run, STEM, max_tokens=1) == (40, 0)
    for i in range(1, 7):
        run.add(told_apart(i) * 2, max_tokens=9)
    run.run()
    run.check_all_ended()
    assert run.toy.snapshots[0] == (0, 32) and 1 <= keys(run) <= 4
    assert computed(run, told_apart(6) * 2, max_tokens=1)[1] in (0, 32)


def test_the_only_snapshot_is_gone_on_from_in_its_own_slot() -> None:
    states = StateSlots(2, 2, 8, lookahead=0, takes_snapshots=True)
    first, seq = (SimpleNamespace(work=SequenceWork(i, [1], 0, ([],))) for i in range(2))
    states.enter(first)  # type: ignore[arg-type]
    states._snapshots[b"key"] = states._free.pop()
    states.enter(seq, b"key")  # type: ignore[arg-type]
    assert (first.work.state_slot, seq.work.state_slot, states.copies) == (0, 1, [])
    assert not states.has(b"key")


def test_steps_that_are_begun_ahead_know_of_the_snapshot(bench: Any) -> None:
    """The first block that ends behind a prompt is left out: its end was not foreseen a step before."""
    run = bench(**SLOTS, lookahead=1)
    run.add([*STEM, 1], max_tokens=39)
    run.run()
    assert [at for _, at in run.toy.snapshots] == [32, 56, 64, 72]
    run.check_all_ended()


def test_prompts_of_another_salt_or_that_do_not_want_to_find_nothing(bench: Any) -> None:
    run = bench(**SLOTS)
    assert computed(run, STEM, max_tokens=1, cache_salt="a") == (40, 0)
    assert computed(run, STEM, max_tokens=1, cache_salt="b") == (40, 0)
    assert computed(run, STEM, max_tokens=1, cache_salt="b", skip_reading_prefix_cache=True) == (40, 0)
    assert computed(run, STEM, max_tokens=1, cache_salt="b") == (8, 32)


def test_without_prefix_caching_nothing_is_kept(bench: Any) -> None:
    run = bench(**SLOTS, enable_prefix_caching=False)
    assert [computed(run, STEM, max_tokens=30) for _ in range(2)] == [(69, 0)] * 2
    assert run.toy.snapshots == [] and keys(run) == 0


def test_a_reset_gives_snapshots_up(bench: Any) -> None:
    run = bench(**SLOTS)
    assert computed(run, STEM, max_tokens=12) == (40 + 11, 0)
    assert run.engine.state_slots() == (0, 2, 12)
    run.add(STEM, max_tokens=30, ignore_eos=True)
    run.step()
    run.engine.reset_prefix_cache()
    run.engine.check_invariants()
    assert keys(run) == 0
    run.run()
    # only what the one that went on left at its end
    assert computed(run, STEM, max_tokens=1) == (40, 0)
    run.check_all_ended()
