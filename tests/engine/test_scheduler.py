"""The scheduler: who gets how many tokens."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from albireo.errors import InvariantError
from albireo.profiles import PROFILES, Profile


def computed(run: Any) -> list[dict[int, tuple[int, int]]]:
    """A dict a step: sequence -> (first position, number of tokens)."""
    return [{seq_id: entry[:2] for seq_id, entry in plan.items()} for plan in run.toy.plans]


def test_a_prompt_is_computed_in_chunks_beside_decoding(bench: Any) -> None:
    run = bench(max_num_batched_tokens=10)
    run.add([1] * 5, max_tokens=9)
    run.step()
    run.add([2] * 25, max_tokens=2)
    run.run()
    assert computed(run)[1:5] == [
        {0: (5, 1), 1: (0, 9)},
        {0: (6, 1), 1: (9, 9)},
        {0: (7, 1), 1: (18, 7)},
        {0: (8, 1), 1: (25, 1)},
    ]
    run.check_all_ended()


@pytest.mark.parametrize("profile", PROFILES)
def test_under_every_profile_those_that_decode_come_first(bench: Any, profile: Profile) -> None:
    """A prompt of 700 comes to eight: each of them has a token of every step, the prompt what the budget leaves."""
    limits = asdict(PROFILES[profile])
    del limits["target_itl_ms"]
    run = bench(num_blocks=200, max_model_len=800, **limits)
    for _ in range(8):
        run.add([1] * 5, max_tokens=6)
    run.step()
    run.add([2] * 700, max_tokens=2)
    run.run()
    steps = computed(run)[1:3]
    assert all({seq for seq, (_, num) in step.items() if num == 1} >= set(range(8)) for step in steps)
    left = limits["max_num_batched_tokens"] - 8
    assert [step[8][1] for step in steps] == ([left, 700 - left] if left < 700 else [700, 1])
    run.check_all_ended()


def test_prompts_that_want_logprobs_share_the_rows_of_a_step(bench: Any) -> None:
    run = bench(max_num_batched_tokens=64, max_prompt_rows=8)
    run.add([1] * 5, max_tokens=2, prompt_logprobs=0)
    run.add([2] * 12, max_tokens=2, prompt_logprobs=0)
    run.add([3] * 12, max_tokens=2)
    run.run()
    assert computed(run)[:3] == [
        {0: (0, 5), 1: (0, 4)},  # 4 rows, and the last token of a prompt needs none of them
        {0: (5, 1), 1: (4, 8), 2: (0, 12)},
        {1: (12, 1), 2: (12, 1)},
    ]
    assert len(run.last["1"].progress.prompt_logprobs) == 11


def test_only_the_chunk_that_ends_the_prompt_draws_a_token(bench: Any) -> None:
    run = bench(max_num_batched_tokens=10)
    run.add([2] * 25, max_tokens=2)
    run.run()
    assert [plan[0][2] for plan in run.toy.plans] == [0, 0, 1, 1]


def test_first_come_first_served_until_seats_run_out(bench: Any) -> None:
    run = bench(max_num_seqs=2)
    for start in range(4):
        run.add([start] * 9, max_tokens=2 + start)
    run.run()
    assert list(computed(run)[0]) == [0, 1]
    assert list(computed(run)[2]) == [1, 2]
    assert list(run.last) == ["0", "1", "2", "3"]
    run.check_all_ended()


def test_lower_priority_numbers_first_and_ties_by_arrival(bench: Any) -> None:
    run = bench(max_num_seqs=1, scheduling_policy="priority")
    for request_id, priority in (("a", 1), ("b", 0), ("c", 1), ("d", -1)):
        run.add([3] * 9, request_id, max_tokens=2, priority=priority)
    run.run()
    assert list(run.last) == ["d", "b", "a", "c"]


def test_a_better_priority_prompt_leaves_a_token_to_each_that_decodes(bench: Any) -> None:
    run = bench(max_num_batched_tokens=10, scheduling_policy="priority")
    for start in range(3):
        run.add([start] * 3, max_tokens=9, priority=1)
    run.step()
    run.add([7] * 25, max_tokens=1, priority=0)
    run.step()
    run.step()
    assert computed(run)[1:] == [
        {0: (3, 1), 1: (3, 1), 2: (3, 1), 3: (0, 7)},
        {3: (7, 7), 0: (4, 1), 1: (4, 1), 2: (4, 1)},
    ]
    run.run()
    run.check_all_ended()


def test_a_budget_below_the_number_running_serves_the_first_in_order(bench: Any) -> None:
    run = bench(max_num_batched_tokens=2)
    for start in range(3):
        run.add([start], max_tokens=3)
    run.run()
    assert [list(plan) for plan in computed(run)] == [[0, 1], [0, 1], [0, 1], [2], [2], [2]]
    run.check_all_ended()


def test_a_sequence_is_not_admitted_before_all_its_known_tokens_have_room(bench: Any) -> None:
    run = bench(num_blocks=8, max_num_batched_tokens=16, max_model_len=57)
    run.add([1] * 12, max_tokens=5)
    run.add([2] * 41, max_tokens=2)
    run.add([3] * 4, max_tokens=2)
    run.run()
    # the third is short beside the second, and finds a block that this will not need
    assert [list(plan) for plan in computed(run)] == [[0]] * 5 + [[1]] + [[1, 2]] * 2 + [[1]]
    assert run.engine.stats().num_preemptions == 0
    run.check_all_ended()


def test_n_sequences_share_the_prompt_and_copy_only_its_last_block(bench: Any) -> None:
    run = bench()
    run.add([1] * 20, n=4, max_tokens=3)
    run.step()
    assert run.toy.plans == [{0: (0, 20, 4)}]
    pool = run.engine._scheduler.places.tables.pool
    assert pool.num_used == 3
    run.step()
    assert len(run.toy.copies[-1]) == 3
    assert pool.num_used == 2 + 4
    run.run()
    assert run.toy.num_computed_tokens == 20 + 4 * 2
    assert len({tuple(tokens) for tokens in run.tokens.values()}) == 4
    run.check_all_ended()


def test_a_prompt_of_full_blocks_is_shared_without_copies(bench: Any) -> None:
    run = bench()
    run.add([1] * 16, n=3, max_tokens=3)
    run.run()
    assert not any(run.toy.copies)
    run.check_all_ended()


def test_a_shared_block_is_copied_even_when_the_others_have_to_wait(bench: Any) -> None:
    run = bench(max_num_batched_tokens=1)
    run.add([1] * 4, n=2, max_tokens=3)
    for _ in range(5):
        run.step()
    assert run.toy.plans[-1] == {0: (4, 1, 1)}
    assert len(run.toy.copies[-1]) == 1
    run.run()
    assert sum(map(len, run.toy.copies)) == 1
    run.check_all_ended()


def test_more_sequences_than_seats_take_turns(bench: Any) -> None:
    run = bench(max_num_seqs=2)
    run.add([1] * 20, n=5, max_tokens=4)
    run.run()
    assert run.toy.plans[0] == {0: (0, 20, 5)}
    assert all(len(plan) <= 2 for plan in run.toy.plans)
    run.check_all_ended()


def test_copies_come_in_an_order_that_is_safe_when_blocks_change_hands(bench: Any) -> None:
    run = bench(num_blocks=5, max_model_len=33)
    run.add([1] * 12, n=4, max_tokens=20)
    run.run()
    assert run.engine.stats().num_preemptions > 0
    run.check_all_ended()


@pytest.mark.parametrize("how", ["before", "within"])
def test_a_failed_step_changes_no_progress_and_can_be_repeated(
    bench: Any, step_failed: type[Exception], how: str
) -> None:
    run = bench()
    run.add([1] * 12, n=3, max_tokens=20)
    run.add([1] * 12 + [2], max_tokens=20)
    for _ in range(3):
        with pytest.raises(step_failed):
            run.step(fail=how)
        run.engine.check_invariants()
        run.step()
    run.run()
    run.check_all_ended()


def test_the_step_behind_one_that_failed_may_go_without_the_last_of_it(
    bench: Any, step_failed: type[Exception]
) -> None:
    run = bench()
    for _ in range(3):
        run.add([1] * 5, max_tokens=4)
    run.step()
    assert run.engine.leave_out_last() is None
    with pytest.raises(step_failed):
        run.step(fail="within")
    assert run.engine.leave_out_last() == ("2", 0)
    run.step()
    run.step()
    assert [list(plan) for plan in run.toy.plans[1:]] == [[0, 1], [0, 1, 2]]
    run.run()
    run.check_all_ended()


def test_who_is_left_out_goes_on_where_the_others_wait_for_its_blocks(bench: Any, step_failed: type[Exception]) -> None:
    """The first was to write a copy of their last block: it has given all up, and finds too little beside the other."""
    run = bench(num_blocks=5, max_model_len=24, enable_prefix_caching=False)
    run.add([1] * 20, n=2, max_tokens=3)
    run.step()
    with pytest.raises(step_failed):
        run.step(fail="before")
    assert run.engine.leave_out_last() == ("0", 1)
    run.step()
    assert list(run.toy.plans[-1]) == [1]
    run.run()
    run.check_all_ended()


def held(run: Any) -> list[int]:
    """How many blocks each running sequence has."""
    return [len(seq.block_tables[0]) for seq in run.engine._scheduler.places.running]


def test_a_device_that_runs_ahead_finds_a_place_for_the_next_token(bench: Any) -> None:
    for lookahead, num_blocks in ((0, 1), (1, 2)):
        run = bench(lookahead=lookahead)
        run.add([1] * 8, max_tokens=20)
        run.step()
        assert held(run) == [num_blocks]
        run.run()
        run.check_all_ended()
    # but none behind the last token that it may have
    run = bench(lookahead=10)
    run.add([1] * 8, max_tokens=8)
    run.step()
    assert held(run) == [2]


def test_nobody_is_preempted_for_a_place_that_may_be_needed(bench: Any) -> None:
    run = bench(lookahead=1, num_blocks=4, max_model_len=17)
    for start in (1, 2):
        run.add([start] * 8, max_tokens=5)
    run.step()
    assert held(run) == [2, 1] and run.engine.stats().num_preemptions == 0
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize("place", ["tables.share", "tables.let_go", "tables.grow", "host.swap_in", "cache.publish"])
def test_a_plan_that_is_interrupted_as_somebody_is_admitted_is_taken_back(
    bench: Any, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """The second goes on from blocks that the first was to write in this very step."""
    run = bench()
    prompt = [i % 30 + 1 for i in range(20)]
    for i in range(2):
        run.add([*prompt, i], max_tokens=4)
    part, name = place.split(".")
    owner = getattr(run.engine._scheduler.places, part)
    method = getattr(owner, name)

    def interrupted(*args: Any) -> Any:
        if len(run.engine._scheduler.places.running) == 2:
            raise KeyboardInterrupt
        return method(*args)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            run.engine.step()
    run.engine.check_invariants()
    run.run()
    run.check_all_ended()


def test_the_first_in_order_alone_not_fitting_is_our_bug(bench: Any) -> None:
    run = bench(num_blocks=4)
    run.add([1] * 10, max_tokens=10)
    run.step()
    run.engine._requests["0"].sequences[0].num_tokens = 40
    with pytest.raises(InvariantError, match="alone does not fit"):
        run.engine.step()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda s: s.places.running.members.clear(), "RUNNING: the line"),
        (lambda s: setattr(s.places.running.members[0], "num_computed_tokens", 99), "99 of 13 computed"),
        (lambda s: s.places.running.members[0].output_token_ids.append(1), "miscounts"),
        (lambda s: s.places.waiting.members[0].block_tables[0].append(3), "is WAITING and holds"),
        (lambda s: s.places.running.members[0].block_tables[0].append(5), "reference counts"),
    ],
)
def test_check_invariants_sees_damage(bench: Any, damage: Any, words: str) -> None:
    run = bench(max_num_seqs=1)
    run.add([1] * 12, max_tokens=4)
    run.add([1] * 12, max_tokens=4)
    run.step()
    damage(run.engine._scheduler)
    with pytest.raises(InvariantError, match=words):
        run.engine.check_invariants()
