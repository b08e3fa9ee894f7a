"""Short prompts beside a long one: they pass it, it goes on with half of each step, and what they share is shared."""

from __future__ import annotations

from typing import Any

import pytest


def tokens_of(run: Any, seq_id: int) -> list[int]:
    """How many tokens a sequence had of each step."""
    return [plan[seq_id][1] if seq_id in plan else 0 for plan in run.toy.plans]


def test_a_short_prompt_passes_a_long_one(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400)
    run.add([1] * 300, max_tokens=2)
    run.step()
    run.add([2] * 10, max_tokens=2)
    run.run()
    assert tokens_of(run, 1)[:3] == [0, 10, 1]
    assert tokens_of(run, 0)[:4] == [32, 22, 31, 32], "it has what the other leaves"
    assert list(run.last) == ["1", "0"]
    run.check_all_ended()


def test_the_few_that_are_left_of_one_that_passes_come_next(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400)
    run.add([1] * 300, max_tokens=2)
    run.step()
    run.add([2] * 30, max_tokens=2)
    run.step()
    run.step()
    assert tokens_of(run, 1) == [0, 16, 14]
    assert tokens_of(run, 0) == [32, 16, 18]


def test_the_long_one_keeps_half_of_each_step(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=200, max_model_len=400)
    run.add([1] * 320, max_tokens=1)
    run.step()
    for idx in range(30):
        run.add([2 + idx] * 20, max_tokens=1)
    steps = 0
    while "0" not in run.last:
        run.step()
        steps += 1
    assert all(num >= 16 for num in tokens_of(run, 0)[:-1])
    assert steps <= 2 * (320 - 32) // 32
    run.run()
    run.check_all_ended()


def test_those_that_are_as_long_wait_for_their_turn(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400)
    run.add([1] * 200, max_tokens=1)
    run.step()
    run.add([2] * 100, max_tokens=1)
    run.run()
    assert list(run.last) == ["0", "1"]
    assert tokens_of(run, 1)[:6] == [0] * 6


def test_the_shortest_passes_another_that_has_begun(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=200, max_model_len=800)
    run.add([1] * 600, max_tokens=1)
    run.step()
    run.add([2] * 100, max_tokens=1)
    run.step()
    assert tokens_of(run, 1) == [0, 16]
    run.add([3] * 8, max_tokens=1)
    run.step()
    assert tokens_of(run, 1)[-1] == 16, "it has begun, and there is nothing left of the half"
    run.run()
    run.check_all_ended()


def test_who_shares_the_prompt_that_is_computed_waits_for_it(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400)
    run.add([1] * 300, max_tokens=2)
    run.step()
    run.add([1] * 50 + [2], max_tokens=2)
    run.step()
    assert tokens_of(run, 1) == [0, 0], "its next block is computed in this step"
    run.run()
    assert run.last["1"].progress.num_cached_tokens == 48
    assert list(run.last) == ["1", "0"], "and once it is there, it passes"
    run.check_all_ended()


def test_who_cannot_read_the_cache_does_not_wait_for_it(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400)
    run.add([1] * 300, max_tokens=2)
    run.step()
    run.add([1] * 20, max_tokens=2, skip_reading_prefix_cache=True)
    run.step()
    assert tokens_of(run, 1) == [0, 16]


def test_nobody_passes_with_blocks_that_the_long_one_needs(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=26, max_model_len=190, block_size=8)
    run.add([1] * 180, max_tokens=2)
    run.step()
    run.add([2] * 20, max_tokens=2)  # 3 blocks; 25 - 23 are free
    run.run()
    assert run.engine.stats().num_preemptions == 0
    assert list(run.last) == ["0", "1"]


def test_who_is_passed_keeps_its_seat(bench: Any) -> None:
    run = bench(max_num_batched_tokens=32, num_blocks=200, max_model_len=800, max_num_seqs=3)
    run.add([1] * 400, max_tokens=300)
    run.step()
    run.add([2] * 200, max_tokens=1)
    for idx in range(3):
        run.add([3 + idx] * 8, max_tokens=150)
    run.run()
    assert tokens_of(run, 2)[1] == 8, "there are seats for it and for whom it passes"
    assert next(iter(run.last)) == "1"
    run.check_all_ended()


def test_adapters_do_not_pass_one_that_waits_for_a_slot(bench: Any) -> None:
    """However many long prompts without an adapter come, beside which they would begin."""
    run = bench(max_num_batched_tokens=32, num_blocks=200, max_model_len=400, num_adapter_slots=1)
    run.add([1] * 8, max_tokens=12, adapter=1)
    run.add([2] * 300, max_tokens=1)
    run.step()
    run.add([3] * 100, "other", max_tokens=1, adapter=2)
    for idx in range(12):
        if "other" in run.last:
            break
        run.add([idx + 4] * 300, max_tokens=1)
        for num in range(10):
            if num % 3 == 0:
                run.add([idx + 20, num + 1], max_tokens=12, adapter=1)
            run.step()
    assert "other" in run.last
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize(("priority", "passes"), [(0, True), (1, False), (2, False)])
def test_priorities_go_before_lengths(bench: Any, priority: int, passes: bool) -> None:
    """As long as the other: it passes if it is to go before, and only then."""
    run = bench(max_num_batched_tokens=32, num_blocks=100, max_model_len=400, scheduling_policy="priority")
    run.add([1] * 200, max_tokens=1, priority=1)
    run.step()
    run.add([2] * 200, max_tokens=1, priority=priority)
    run.step()
    assert tokens_of(run, 1) == [0, 16 if passes else 0]
    run.run()
    assert list(run.last) == (["1", "0"] if passes else ["0", "1"])
    run.check_all_ended()


def test_a_prompt_that_sees_itself_is_not_cut_for_others(bench: Any) -> None:
    run = bench(max_num_batched_tokens=64, num_blocks=100, max_model_len=400, are_images_whole=True)
    run.add([1] * 300, max_tokens=1)
    run.step()
    run.add([2] * 10, max_tokens=1)
    run.step()
    assert tokens_of(run, 0) == [64, 64]
    assert tokens_of(run, 1) == [0, 0]


def test_steps_with_prompts_are_as_long_as_they_are_to_be(bench: Any) -> None:
    """By the clock of the tests a step takes a second, whatever it has: there are as many tokens as in the first."""
    run = bench(max_num_batched_tokens=256, num_blocks=100, max_model_len=700, target_step_s=1.0)
    run.add([1] * 20, max_tokens=9)
    run.step()
    run.add([2] * 600, max_tokens=1)
    for _ in range(4):
        run.step()
    assert all(16 <= num <= 64 for num in tokens_of(run, 1)[1:])
    run.run()
    run.check_all_ended()
