"""Embeddings on the toy: in any chunks, beside requests that generate, through preemption, failures and the cache."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.engine.pooling import Pooling
from albireo.errors import InvalidParams, InvariantError, PromptTooLong, UnsupportedFeature
from albireo.params import PoolingParams, SamplingParams
from albireo.step import StepResult

LAST, MEAN = PoolingParams(), PoolingParams(pooling_type="mean")
PROMPT = [(i * 11) % 39 + 1 for i in range(45)]


@pytest.mark.parametrize("params", [LAST, MEAN], ids=["last", "mean"])
@pytest.mark.parametrize("budget", [1, 7, 16, 44, 45, 64])
def test_chunks_do_not_matter_and_nothing_is_sampled(bench: Any, params: PoolingParams, budget: int) -> None:
    run = bench(max_num_batched_tokens=budget)
    run.add(PROMPT, max_tokens=None, pooling=params)
    assert run.run() == -(-45 // budget)
    run.check_all_ended()
    stats = run.engine.stats()
    assert (stats.generation_tokens, stats.prompt_tokens, stats.finished["stop"]) == (0, 45, 1)
    metrics = run.last["0"].progress.metrics
    assert metrics.first_token_s == metrics.last_token_s
    assert metrics.arrival_s < metrics.first_scheduled_s < metrics.first_token_s <= metrics.finished_s


def test_where_tokens_see_what_comes_behind_them_a_prompt_is_in_one_step(bench: Any) -> None:
    run = bench(is_causal=False, enable_prefix_caching=False, max_num_batched_tokens=64, max_model_len=64)
    for num in (40, 24, 1, 30, 34):
        run.add((PROMPT + PROMPT)[:num], max_tokens=None, pooling=MEAN)
    run.run()
    assert run.toy.plans == [{0: (0, 40, 0), 1: (0, 24, 0)}, {2: (0, 1, 0), 3: (0, 30, 0)}, {4: (0, 34, 0)}]
    run.check_all_ended()


def test_the_mean_of_a_preempted_prompt_counts_every_token_once(bench: Any) -> None:
    """The toy insists that what it is to add follows what was added."""
    run = bench(num_blocks=9, max_num_batched_tokens=10)
    run.add(PROMPT[:22], max_tokens=30)
    run.step()
    run.step()
    run.add(PROMPT[5:45], max_tokens=None, pooling=MEAN)
    run.run()
    assert run.engine.stats().num_preemptions > 0
    assert run.last["1"].progress.metrics.num_preemptions > 0
    run.check_all_ended()


@pytest.mark.parametrize("how", ["before", "within"])
def test_a_step_that_failed_adds_nothing(bench: Any, step_failed: type[Exception], how: str) -> None:
    run = bench(max_num_batched_tokens=10)
    run.add(PROMPT, max_tokens=None, pooling=MEAN)
    run.step()
    with pytest.raises(step_failed):
        run.step(fail=how)
    run.run()
    run.check_all_ended()


def test_the_last_token_uses_the_prefix_cache_and_the_mean_does_not(bench: Any) -> None:
    """A token that comes from the cache has no hidden state; both leave their blocks there for others."""
    run = bench()
    for params in (LAST, LAST, MEAN, LAST):
        run.add(PROMPT, max_tokens=None, pooling=params)
        run.run()
    run.add(PROMPT, max_tokens=3)
    run.run()
    assert [run.last[str(i)].progress.num_cached_tokens for i in range(5)] == [0, 40, 0, 40, 40]
    assert run.embeddings["0"] == run.embeddings["1"] == run.embeddings["3"]
    run.check_all_ended()
    fresh = bench()
    fresh.add(PROMPT, max_tokens=None, pooling=MEAN)
    fresh.run()
    fresh.add(PROMPT, max_tokens=1)
    fresh.run()
    assert fresh.last["1"].progress.num_cached_tokens == 40


def test_requests_of_both_kinds_share_steps(bench: Any) -> None:
    run = bench(max_num_batched_tokens=24, max_num_seqs=3)
    for i in range(4):
        run.add(PROMPT[i : i + 20], max_tokens=6, n=1 + i % 2)
        run.add(PROMPT[: 9 + 8 * i], max_tokens=None, pooling=(LAST, MEAN)[i % 2])
    run.run()
    assert any(len(plan) > 1 for plan in run.toy.plans)
    run.check_all_ended()


def test_one_that_is_aborted_or_ended_from_outside_has_no_embedding(bench: Any) -> None:
    run = bench(max_num_batched_tokens=10)
    for i in range(2):
        run.add(PROMPT, request_id=str(i), max_tokens=None, pooling=MEAN)
    run.step()
    (update,) = run.abort("0")
    assert (update.finish_reason, update.embedding) == ("abort", None)
    assert [update.embedding for update in run.engine.finish("1", 0, "error", "why")] == [None]
    assert not run.engine.has_work() and run.engine.stats().kv_cache_usage == 0


def test_a_prompt_may_fill_the_context_as_nothing_comes_behind_it(bench: Any) -> None:
    run = bench(max_model_len=45, num_blocks=7)
    run.add(PROMPT, max_tokens=None, pooling=LAST)
    run.run()
    run.check_all_ended()
    with pytest.raises(PromptTooLong, match="46 tokens, max_model_len=45"):
        run.add([*PROMPT, 1], max_tokens=None, pooling=LAST)
    with pytest.raises(PromptTooLong, match="room for 40"):
        bench(num_blocks=6).add(PROMPT, max_tokens=None, pooling=LAST)
    with pytest.raises(PromptTooLong, match="leaves room for 44"):
        run.add(PROMPT)


@pytest.mark.parametrize(
    ("settings", "prompt", "params", "error", "words"),
    [
        ({}, [], LAST, InvalidParams, "no tokens"),
        ({}, [99], LAST, InvalidParams, "token id 99"),
        ({}, [1], PoolingParams(dimensions=2), InvalidParams, "dimensions=2 is more than this model's 1"),
        ({"embedding_size": 0}, [1], LAST, UnsupportedFeature, "no embeddings"),
    ],
)
def test_what_can_never_run_is_refused(
    bench: Any, settings: Any, prompt: list[int], params: PoolingParams, error: type[Exception], words: str
) -> None:
    run = bench(**settings)
    with pytest.raises(error, match=words):
        run.engine.add_request("r", prompt, SamplingParams(), pooling=params)
    assert not run.engine.has_work()


def test_an_executor_that_pools_nothing_is_noticed(bench: Any) -> None:
    run = bench()
    run.add(PROMPT, max_tokens=None, pooling=LAST)
    run.engine._execute = lambda plan: StepResult([])
    with pytest.raises(InvariantError, match="asked for an embedding and got none"):
        run.engine.step()


def test_which_rows_a_step_is_asked_for() -> None:
    mean, last = Pooling(MEAN, num_summed=10, sums=[1.0]), Pooling(PoolingParams(pooling_type="last"))
    assert mean.task(0, 10, 30) is None, "all summed before a preemption"
    part = mean.task(4, 16, 30)
    assert part is not None and (part.num_rows, part.num_earlier, part.is_last) == (6, 10, False)
    assert last.task(0, 29, 30) is None
    end = last.task(29, 30, 30)
    assert end is not None and (end.num_rows, end.is_last) == (1, True)
