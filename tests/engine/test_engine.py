"""The engine: finishing, aborting, reporting, and errors in the middle."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.engine.engine import Engine
from albireo.errors import InvariantError
from albireo.params import SamplingParams
from albireo.repetition_params import RepetitionDetectionParams
from albireo.step import SampledToken, StepResult, TokenLogprobs


class Script:
    """An executor that says what it is told, for one sequence at a time."""

    def __init__(self, *tokens: int) -> None:
        self.tokens = list(tokens)

    def __call__(self, plan: Any) -> StepResult:
        return StepResult([SampledToken(task.seq_id, self.tokens.pop(0)) for w in plan.work for task in w.samples])


TWICE = {"repetition_detection": RepetitionDetectionParams(max_pattern_size=2, min_count=2)}


def run_script(bench: Any, tokens: list[int], **kwargs: Any) -> tuple[int, Any, Any]:
    """How many tokens came out, finish reason, stop reason; EOS ids are 0 and 4."""
    settings = bench(eos_token_ids=frozenset({0, 4}), max_model_len=12).settings
    engine = Engine(settings, Script(*tokens), lambda: 0.0)
    engine.add_request("r", [1, 2, 3], SamplingParams(**kwargs))
    count = 0
    while True:
        (update,) = engine.step()
        count += len(update.token_ids)
        if update.finish_reason is not None:
            assert update.is_request_finished and not engine.has_work() and engine.step() == []
            return count, update.finish_reason, update.stop_reason


@pytest.mark.parametrize(
    ("tokens", "kwargs", "expected"),
    [
        ([5, 0], {}, (2, "stop", None)),
        ([5, 4], {}, (2, "stop", None)),
        ([5, 0, 6], {"ignore_eos": True, "max_tokens": 3}, (3, "length", None)),
        ([5, 9], {"stop_token_ids": (9,)}, (2, "stop", 9)),
        ([0], {"stop_token_ids": (0,)}, (1, "stop", None)),
        ([0], {"stop_token_ids": (0,), "ignore_eos": True}, (1, "stop", 0)),
        ([5, 6], {"max_tokens": 2}, (2, "length", None)),
        ([5, 0], {"max_tokens": 2}, (2, "stop", None)),
        ([5] * 9, {"max_tokens": None}, (9, "length", None)),
        ([5] * 9, {"max_tokens": 500}, (9, "length", None)),
        # An executor that does not mask is not believed before min_tokens.
        ([0, 9, 0], {"min_tokens": 3, "stop_token_ids": (9,)}, (3, "stop", None)),
        ([0] * 9, {"min_tokens": 16}, (9, "length", None)),
        ([5, 6, 7, 6, 7, 6], TWICE, (5, "repetition", "repetition_detected")),
        (
            [5, 6, 7, 6, 7, 8, 8],
            {**TWICE, "min_tokens": 6},
            (7, "repetition", "repetition_detected"),
        ),
        ([6, 7, 6, 9], {**TWICE, "stop_token_ids": (9,)}, (4, "stop", 9)),
        ([6, 7, 6, 7], {**TWICE, "max_tokens": 4}, (4, "length", None)),
    ],
)
def test_how_a_sequence_ends(bench: Any, tokens: list[int], kwargs: dict[str, Any], expected: Any) -> None:
    assert run_script(bench, tokens, **kwargs) == expected


def test_engine_without_work_does_nothing(bench: Any) -> None:
    run = bench()
    assert not run.engine.has_work()
    assert run.engine.step() == []
    assert run.toy.plans == []


@pytest.mark.parametrize("num_steps", range(6))
def test_abort_at_any_time_frees_everything_and_disturbs_nobody(bench: Any, num_steps: int) -> None:
    run = bench(max_num_batched_tokens=16, max_num_seqs=3)
    run.add([1] * 30, n=4, max_tokens=5)
    run.add([1] * 30, max_tokens=5)
    for _ in range(num_steps):
        run.step()
    updates = run.abort("0")
    assert [update.index for update in updates] == [3, 2, 1, 0]
    assert [update.is_request_finished for update in updates] == [False, False, False, True]
    assert run.abort("0") == [] and run.abort("unknown") == []
    run.run()
    run.check_all_ended()
    assert run.ends["1", 0] == ("length", None)


def test_finish_ends_one_continuation_and_is_safe_to_repeat(bench: Any) -> None:
    run = bench()
    run.add([1] * 12, n=2, max_tokens=5)
    run.step()
    update = run.finish("0", 1)
    assert (update.finish_reason, update.stop_reason, update.token_ids) == ("stop", "END", [])
    assert not update.is_request_finished
    assert run.finish("0", 1) is None and run.finish("unknown", 0) is None
    run.run()
    assert run.finish("0", 0) is None
    assert len(run.tokens["0", 0]) == 5 and len(run.tokens["0", 1]) == 1
    run.check_all_ended()


def test_finish_of_a_preempted_sequence(bench: Any) -> None:
    run = bench(num_blocks=8, max_model_len=57)
    run.add([1] * 20, max_tokens=20)
    run.add([2] * 20, max_tokens=20)
    while run.engine.stats().num_preemptions == 0:
        run.step()
    assert run.finish("1", 0).is_request_finished
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize("num_steps", [0, 1])
def test_the_next_sequence_takes_over_the_prompt_when_the_first_is_finished(bench: Any, num_steps: int) -> None:
    run = bench(max_num_batched_tokens=16)
    run.add([1] * 30, n=3, max_tokens=3, prompt_logprobs=0)
    for _ in range(num_steps):
        run.step()
    run.finish("0", 0)
    run.finish("0", 2)
    run.run()
    assert run.ends["0", 1] == ("length", None)
    assert len(run.last["0"].progress.prompt_logprobs) == 29
    run.check_all_ended()


def test_logprobs_and_prompt_logprobs_arrive_with_the_tokens(bench: Any) -> None:
    run = bench(max_num_batched_tokens=16)
    run.add([1] * 30, max_tokens=2, prompt_logprobs=0, logprobs=0)
    assert run.step() == []
    (first,) = run.step()
    assert [entry.token_ids for entry in first.progress.prompt_logprobs] == [[1]] * 29
    assert first.logprobs == [TokenLogprobs(first.token_ids, [-1.0], [1])]
    run.run()
    run.add([1], max_tokens=2, prompt_logprobs=0)
    run.run()
    assert run.last["1"].progress.prompt_logprobs == []
    assert run.last["1"].logprobs is None


def test_prompt_logprobs_survive_preemption_in_the_middle_of_the_prompt(bench: Any) -> None:
    run = bench(num_blocks=9, max_num_batched_tokens=5, max_model_len=60)
    run.add([1] * 26, max_tokens=30)
    while not run.tokens:
        run.step()
    prompt = list(range(1, 33))
    run.add(prompt, max_tokens=2, prompt_logprobs=0)
    run.run()
    assert run.engine.stats().num_preemptions > 0
    assert [entry.token_ids[0] for entry in run.last["1"].progress.prompt_logprobs] == prompt[1:]
    run.check_all_ended()


def test_times_and_cached_tokens_for_the_front_door(bench: Any) -> None:
    run = bench(max_num_batched_tokens=16)
    run.add([1] * 30, max_tokens=3, arrival_s=0.5)
    run.run()
    metrics = run.last["0"].progress.metrics
    # The clock ticks once when a step begins and once when it reports.
    assert (metrics.arrival_s, metrics.first_scheduled_s) == (0.5, 1.0)
    assert (metrics.first_token_s, metrics.last_token_s, metrics.finished_s) == (4.0, 8.0, 8.0)
    assert (metrics.num_preemptions, metrics.preempted_s) == (0, 0.0)
    assert metrics.num_prefill_chunks == 2
    run.add([1] * 30, max_tokens=1)
    run.run()
    assert run.last["1"].progress.num_cached_tokens == 24
    assert run.last["1"].progress.metrics.arrival_s == 9.0
    assert run.last["1"].progress.metrics.num_prefill_chunks == 1


def test_updates_belong_to_the_receiver(bench: Any) -> None:
    run = bench()
    run.add([1] * 30, max_tokens=3)
    (update,) = run.step()
    kept = list(update.token_ids)
    update.token_ids.append(39)
    run.tokens["0", 0] = kept
    run.run()
    run.check_all_ended()


def test_the_prompt_is_the_engines_own(bench: Any) -> None:
    run = bench(max_num_batched_tokens=8)
    prompt = [1] * 30
    run.add(prompt, max_tokens=3)
    prompt[20] = 5
    run.run()
    run.check_all_ended()


def test_exception_of_the_executor_reaches_the_caller_and_the_culprit_can_be_aborted(
    bench: Any, step_failed: type[Exception]
) -> None:
    run = bench()
    run.add([1] * 30, max_tokens=5)
    run.step()
    run.add([1] * 30, max_tokens=5)
    before = run.engine.stats()
    with pytest.raises(step_failed):
        run.step(fail="within")
    after = run.engine.stats()
    assert (after.generation_tokens, after.num_computed_tokens) == (before.generation_tokens, 30)
    assert (after.num_failed_steps, after.num_requests_running, after.num_requests_waiting) == (1, 1, 1)
    run.abort("1")
    run.run()
    run.check_all_ended()


@pytest.mark.parametrize(
    "result",
    [
        StepResult([]),
        StepResult([SampledToken(9, 1)]),
        StepResult([SampledToken(0, 1), SampledToken(0, 1)]),
        StepResult([SampledToken(0, 1)], {0: []}),
    ],
)
def test_a_result_that_does_not_answer_the_plan_is_refused_before_anything_advances(bench: Any, result: Any) -> None:
    run = bench()
    run.add([1] * 30, max_tokens=5, prompt_logprobs=0)
    execute, run.engine._execute = run.engine._execute, lambda plan: result
    with pytest.raises(InvariantError, match="asked"):
        run.engine.step()
    run.engine.check_invariants()
    run.engine._execute = execute
    run.run()
    run.check_all_ended()


def test_check_invariants_sees_a_miscounted_request(bench: Any) -> None:
    run = bench()
    run.add([1] * 30)
    run.engine._requests["0"].num_unfinished = 2
    with pytest.raises(InvariantError, match="miscounts"):
        run.engine.check_invariants()
