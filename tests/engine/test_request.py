"""Requests: what is refused, and what their sequences look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from albireo.engine.request import derive_seed
from albireo.errors import InvalidParams, InvariantError, PromptTooLong, RequestError, UnsupportedFeature
from albireo.step import StepPlan, StepResult


@pytest.mark.parametrize(
    ("prompt", "kwargs", "error", "words"),
    [
        ([], {}, InvalidParams, "no tokens"),
        ([1, 40], {}, InvalidParams, "token id 40"),
        ([1, -1], {}, InvalidParams, "token id -1"),
        ([1], {"priority": 2}, InvalidParams, "priority=2"),
        ([1] * 200, {}, PromptTooLong, "200 tokens; max_model_len=200"),
    ],
)
def test_what_can_never_run_is_refused_alone(
    bench: Any, prompt: list[int], kwargs: dict[str, Any], error: type[RequestError], words: str
) -> None:
    run = bench()
    run.add([1] * 9, "good", max_tokens=2)
    with pytest.raises(error, match=words):
        run.add(prompt, "bad", **kwargs)
    run.engine.check_invariants()
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "fits"),
    [(24, 1, True), (25, 1, False), (20, 5, True), (20, 6, False), (24, None, True), (25, None, False)],
)
def test_what_can_never_fit_the_cache_is_refused_with_the_numbers(
    bench: Any, num_prompt: int, max_tokens: int | None, fits: bool
) -> None:
    run = bench(num_blocks=4)  # 24 positions; the last token of a sequence needs none
    if not fits:
        with pytest.raises(PromptTooLong, match=rf"{num_prompt} tokens .* need 4 KV blocks of 8, the cache has 3"):
            run.add([1] * num_prompt, max_tokens=max_tokens)
        return
    run.add([1] * num_prompt, max_tokens=max_tokens)
    run.run()
    run.check_all_ended()


def test_prompts_whose_tokens_see_each_other_are_in_one_step_and_share_blocks_with_the_same_alone(bench: Any) -> None:
    run = bench(are_prompts_whole=True, max_num_batched_tokens=30)
    with pytest.raises(InvalidParams, match="31 tokens, max_num_batched_tokens=30"):
        run.add([1] * 31)
    with pytest.raises(UnsupportedFeature, match="prompt_logprobs=0: tokens of a prompt see those behind"):
        run.add([1] * 9, prompt_logprobs=0)
    for num in (20, 30, 20):
        run.add([1] * num, max_tokens=2)
    run.run()
    assert [next(plan[seq] for plan in run.toy.plans if seq in plan)[:2] for seq in range(3)] == [
        (0, 20),
        (0, 30),
        (16, 4),
    ]
    run.check_all_ended()


def test_what_watches_a_budget_of_thinking_comes_with_it(bench: Any) -> None:
    with pytest.raises(InvariantError, match="thinking_token_budget and what watches it come together"):
        bench().add([1] * 9, thinking_token_budget=5)


def test_an_id_in_use_is_refused_and_can_be_used_again_afterwards(bench: Any) -> None:
    run = bench()
    run.add([1] * 9, "a", max_tokens=1)
    with pytest.raises(InvalidParams, match="'a' is in use"):
        run.engine.add_request("a", [1], run.added["a"][1])
    run.run()
    run.engine.add_request("a", [1], run.added["a"][1])
    assert run.engine.has_work()


def tasks(bench: Any, **kwargs: Any) -> list[Any]:
    run = bench(eos_token_ids=frozenset({0, 4}))
    seen: list[Any] = []
    execute: Callable[[StepPlan], StepResult] = run.toy

    def spy(plan: StepPlan) -> StepResult:
        seen.extend(task for work in plan.work for task in work.samples)
        return execute(plan)

    run.engine._execute = spy
    run.add([1] * 9, max_tokens=1, **kwargs)
    run.add([1] * 9, max_tokens=1, **kwargs)
    run.engine.step()
    return seen


def test_sequence_i_draws_from_seed_plus_i(bench: Any) -> None:
    assert [task.seed for task in tasks(bench, n=3, seed=11)] == [11, 12, 13] * 2
    assert [task.seed for task in tasks(bench, n=3, seed=-2)][:3] == [2**64 - 2, 2**64 - 1, 0]


def test_requests_without_a_seed_get_one_each_and_the_same_ones_in_another_run(bench: Any) -> None:
    seeds = [task.seed for task in tasks(bench, n=2, seed=None)]
    assert len(set(seeds)) == 4
    assert seeds == [task.seed for task in tasks(bench, n=2, seed=None)]
    assert seeds[0] == derive_seed(0, 0) != derive_seed(1, 0)
    assert seeds[2] == derive_seed(0, 1)


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_ids_masked_for_min_tokens(bench: Any, ignore_eos: bool) -> None:
    assert tasks(bench, ignore_eos=ignore_eos, stop_token_ids=(9,))[0].stop_token_ids == (0, 4, 9)
