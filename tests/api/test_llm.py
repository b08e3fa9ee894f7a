"""LLM over a toy model: order, parameters, stopping, refusals, errors, interrupts."""

from __future__ import annotations

import math
import signal
import threading
import time
from typing import Any

import pytest

from albireo.api import front_door
from albireo.api.llm import LLM
from albireo.config import EngineArgs, EngineConfig
from albireo.errors import (
    ConfigError,
    EngineError,
    InvalidParams,
    InvariantError,
    PromptTooLong,
    TemplateError,
    UnsupportedFeature,
)
from albireo.models.settings.generation import GenerationDefaults
from albireo.outputs import Logprob
from albireo.params import SamplingParams
from albireo.step import StepPlan

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)


def idle(llm: LLM) -> bool:
    stats = llm.stats()
    return (stats.num_requests_running, stats.num_requests_waiting, stats.kv_cache_usage) == (0, 0, 0.0)


# -- prompts and parameters --------------------------------------------------------------------------------------------


def test_outputs_come_in_the_order_of_prompts(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(max_num_seqs=3))
    prompts = [f"prompt {i}" for i in range(8)]
    params = [GREEDY.clone(max_tokens=20 - 2 * i) for i in range(8)]
    outputs = llm.generate(prompts, params)
    assert [output.prompt for output in outputs] == prompts
    assert [len(output.outputs[0].token_ids) for output in outputs] == [20 - 2 * i for i in range(8)]
    assert len({output.request_id for output in outputs}) == 8
    for prompt, output, each in zip(prompts, outputs, params, strict=True):
        alone = llm.generate(prompt, each)[0]
        assert output.outputs[0].text == alone.outputs[0].text
        assert output.finished and output.outputs[0].finish_reason == "length"
    assert idle(llm)


def test_every_shape_of_prompt_gives_the_same_output(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    ids = house.tokenizer.encode("same")
    shapes: list[Any] = ["same", ids, {"prompt": "same"}, {"prompt_token_ids": ids}]
    outputs = [llm.generate(shape, GREEDY)[0] for shape in shapes] + llm.generate(shapes, GREEDY)
    assert len({output.outputs[0].text for output in outputs}) == 1
    assert [output.prompt for output in outputs] == ["same", None, "same", None] * 2
    assert all(output.prompt_token_ids == ids for output in outputs)
    assert llm.generate([]) == []


def test_lists_of_different_lengths_are_refused(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(scheduling_policy="priority"))
    with pytest.raises(InvalidParams, match="2 prompts and 1 sampling_params"):
        llm.generate(["a", "b"], [GREEDY])
    with pytest.raises(InvalidParams, match="priority=5"):
        llm.generate("a", GREEDY, priority=5)  # type: ignore[arg-type]
    with pytest.raises(InvalidParams, match="1 prompts and 2 priorities"):
        llm.generate("a", GREEDY, priority=[1, 2])


def test_priorities_say_who_runs_first(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(scheduling_policy="priority", max_num_seqs=1))
    outputs = llm.generate(["a", "b", "c"], GREEDY, priority=[2, 0, 1])
    started = [output.metrics.first_scheduled_s for output in outputs if output.metrics]
    assert sorted(range(3), key=lambda i: started[i] or 0.0) == [1, 2, 0]


def test_no_parameters_are_the_models_own(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(defaults=GenerationDefaults(temperature=0.0, max_tokens=5)))
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0.0, max_tokens=5)
    assert len(llm.generate("x")[0].outputs[0].token_ids) == 5


def test_a_refused_request_refuses_the_call_and_leaves_nothing_behind(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(max_model_len=30))
    with pytest.raises(PromptTooLong, match="30"):
        llm.generate(["fine", "x" * 31], GREEDY)
    with pytest.raises(InvalidParams, match="logprobs=21"):
        llm.generate(["fine", "fine"], [GREEDY, GREEDY.clone(logprobs=21)])
    with pytest.raises(InvalidParams, match="no tokens"):
        llm.generate(["fine", ""], GREEDY)
    assert house.toy.num_steps == 0
    assert idle(llm)
    assert llm.generate("fine", GREEDY)[0].finished


# -- text and stopping -------------------------------------------------------------------------------------------------


def test_eos_ends_and_is_a_token_but_not_text(house: Any) -> None:
    toy = house.toy
    toy.script("q", toy.ids("Hello"))
    output = LLM.from_loaded(house.loaded()).generate("q", SamplingParams(temperature=0))[0].outputs[0]
    assert (output.text, output.finish_reason, output.stop_reason) == ("Hello", "stop", None)
    assert output.token_ids == toy.ids("Hello", "</s>")


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_token_is_text_only_when_included(house: Any, include: bool) -> None:
    toy = house.toy
    toy.script("q", toy.ids("Hello", "Ġworld", "!"))
    world = toy.ids("Ġworld")
    params = SamplingParams(temperature=0, stop_token_ids=world, include_stop_str_in_output=include)
    output = LLM.from_loaded(house.loaded()).generate("q", params)[0].outputs[0]
    assert (output.finish_reason, output.stop_reason) == ("stop", world[0])
    assert output.text == ("Hello world" if include else "Hello")
    assert output.token_ids == toy.ids("Hello", "Ġworld")


@pytest.mark.parametrize("include", [False, True])
def test_a_stop_string_across_tokens_ends_the_request(house: Any, include: bool) -> None:
    toy = house.toy
    toy.script("q", toy.ids("Hello", "Ġworld", "! and more"))
    llm = LLM.from_loaded(house.loaded())
    params = SamplingParams(temperature=0, stop=["nope", "lo wor"], include_stop_str_in_output=include)
    output = llm.generate("q", params)[0]
    only = output.outputs[0]
    assert (only.finish_reason, only.stop_reason) == ("stop", "lo wor")
    assert only.text == ("Hello wor" if include else "Hel")
    assert only.token_ids == toy.ids("Hello", "Ġworld")
    assert output.finished and idle(llm)
    assert llm.stats().finished["stop"] == 1


def test_a_stop_string_in_the_last_allowed_token_is_the_reason(house: Any) -> None:
    toy = house.toy
    toy.script("q", toy.ids("Hello", "Ġworld"))
    params = SamplingParams(temperature=0, stop="world", max_tokens=2)
    output = LLM.from_loaded(house.loaded()).generate("q", params)[0].outputs[0]
    assert (output.text, output.finish_reason, output.stop_reason) == ("Hello ", "stop", "world")


def test_stop_strings_wait_for_min_tokens(house: Any) -> None:
    toy = house.toy
    toy.script("q", toy.ids("x.", "x.", "x."))
    llm = LLM.from_loaded(house.loaded())
    texts = {
        num: llm.generate("q", SamplingParams(temperature=0, stop=".", min_tokens=num))[0].outputs[0].text
        for num in (0, 1, 2, 3, 4)
    }
    assert texts == {0: "x", 1: "x", 2: "x.x", 3: "x.x", 4: "x.x.x"}


def test_without_detokenizing_there_are_tokens_only(house: Any) -> None:
    params = GREEDY.clone(detokenize=False, logprobs=0)
    output = LLM.from_loaded(house.loaded()).generate("q", params)[0].outputs[0]
    assert (output.text, len(output.token_ids)) == ("", 12)
    assert output.logprobs is not None
    assert [next(iter(entry.values())).decoded_token for entry in output.logprobs] == [None] * 12


def test_without_a_tokenizer_ids_go_in_and_out(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded(skip_tokenizer_init=True))
    output = llm.generate([[5, 6]], GREEDY)[0]
    assert (output.prompt, output.outputs[0].text, len(output.outputs[0].token_ids)) == (None, "", 12)
    with pytest.raises(InvalidParams, match="skip_tokenizer_init"):
        llm.generate("text", GREEDY)
    with pytest.raises(ConfigError, match="skip_tokenizer_init"):
        llm.get_tokenizer()


def test_n_continuations_end_each_in_its_own_way(house: Any) -> None:
    toy = house.toy
    toy.script("q", toy.ids("one END never"), toy.ids("two"), toy.ids("three goes on for long"))
    llm = LLM.from_loaded(house.loaded())
    params = SamplingParams(n=3, seed=0, stop="END", max_tokens=10)
    output = llm.generate("q", params)[0]
    found = [(o.index, o.text, o.finish_reason, o.stop_reason) for o in output.outputs]
    assert found == [
        (0, "one ", "stop", "END"),
        (1, "two", "stop", None),
        (2, "three goes", "length", None),
    ]
    assert output.finished and idle(llm)


def test_all_continuations_may_stop_in_one_step(house: Any) -> None:
    toy = house.toy
    toy.script("q", toy.ids("aXb"), toy.ids("cXd"), toy.ids("e"))
    llm = LLM.from_loaded(house.loaded())
    outputs = llm.generate("q", SamplingParams(n=3, seed=0, stop="X"))[0].outputs
    assert [(o.text, o.stop_reason) for o in outputs] == [("a", "X"), ("c", "X"), ("e", None)]
    assert idle(llm)


# -- log-probabilities -------------------------------------------------------------------------------------------------


def test_log_probabilities_have_the_shapes_of_vllm(house: Any) -> None:
    toy = house.toy
    toy.script("ab", toy.ids("Hello", "b"))
    llm = LLM.from_loaded(house.loaded())
    params = SamplingParams(temperature=0, logprobs=2, prompt_logprobs=1, max_tokens=2)
    output = llm.generate("ab", params)[0]
    only = output.outputs[0]
    hello, a, b = toy.ids("Hello", "a", "b")
    assert only.logprobs == [
        {hello: Logprob(-0.5, 2, "Hello"), a: Logprob(-1.0, 3, "a"), b: Logprob(-2.0, 4, "b")},
        {b: Logprob(-0.5, 2, "b"), a: Logprob(-1.0, 3, "a")},
    ]
    assert only.cumulative_logprob == -1.0
    assert output.prompt_logprobs == [None, {b: Logprob(-0.5, 2, "b"), a: Logprob(-1.0, 3, "a")}]


def test_zero_log_probabilities_are_the_chosen_ones(house: Any) -> None:
    output = LLM.from_loaded(house.loaded()).generate("ab", GREEDY.clone(logprobs=0, prompt_logprobs=0))[0]
    only = output.outputs[0]
    assert only.logprobs is not None and output.prompt_logprobs is not None
    assert [list(entry) for entry in only.logprobs] == [[token_id] for token_id in only.token_ids]
    assert [entry and list(entry) for entry in output.prompt_logprobs] == [None, house.toy.ids("b")]
    assert only.cumulative_logprob is not None and math.isclose(only.cumulative_logprob, -0.5 * 12)


def test_log_probabilities_not_asked_for_are_none(house: Any) -> None:
    output = LLM.from_loaded(house.loaded()).generate("ab", GREEDY)[0]
    assert (output.prompt_logprobs, output.outputs[0].logprobs, output.outputs[0].cumulative_logprob) == (None,) * 3


def test_the_prompt_of_one_token_has_no_log_probability(house: Any) -> None:
    output = LLM.from_loaded(house.loaded()).generate("a", GREEDY.clone(prompt_logprobs=3))[0]
    assert output.prompt_logprobs == [None]


def test_cached_tokens_and_times_are_reported(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    first, second = (llm.generate("x" * 40, GREEDY)[0] for _ in range(2))
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 32)
    times = second.metrics
    assert times is not None and times.first_scheduled_s is not None and times.first_token_s is not None
    assert times.last_token_s is not None and times.finished_s is not None
    stamps = [times.queued_ts, times.scheduled_ts, times.first_token_ts, times.last_token_ts]
    assert stamps == [times.arrival_s, times.first_scheduled_s, times.first_token_s, times.last_token_s]
    assert times.num_generation_tokens == len(second.outputs[0].token_ids)
    assert abs((time.time() - times.arrival_time) - (time.monotonic() - times.arrival_s)) < 5
    assert times.arrival_s <= times.first_scheduled_s <= times.first_token_s <= times.last_token_s <= times.finished_s


# -- chat --------------------------------------------------------------------------------------------------------------


def test_chat_takes_one_conversation_or_many(house: Any) -> None:
    toy = house.toy
    toy.script("[user] hi\n[assistant] ", toy.ids("Hello"))
    toy.script("[user] bye\n[assistant] ", toy.ids("END"))
    toy.script("[user] hi\n[assistant] wo", toy.ids("lo"))
    llm = LLM.from_loaded(house.loaded())
    params = SamplingParams(temperature=0)
    hi, bye = [{"role": "user", "content": "hi"}], [{"role": "user", "content": "bye"}]
    assert [o.outputs[0].text for o in llm.chat(hi, params)] == ["Hello"]
    outputs = llm.chat([bye, hi], [params, params.clone(max_tokens=1)])
    assert [o.outputs[0].text for o in outputs] == ["END", "Hello"]
    assert outputs[0].prompt == "[user] bye\n[assistant] "
    shouted = llm.chat(hi, params, add_generation_prompt=False, chat_template="{{ messages[0].content }}?")
    assert shouted[0].prompt == "hi?"
    with pytest.raises(TemplateError, match="empty"):
        llm.chat([], params)
    with pytest.raises(InvalidParams, match="2 prompts and 1"):
        llm.chat([hi, bye], [params])


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def sequences(plan: StepPlan) -> list[int]:
    return [task.seq_id for work in plan.work for task in work.samples]


def test_one_bad_request_does_not_take_the_others_along(house: Any) -> None:
    expected = [o.outputs[0].text for o in LLM.from_loaded(house.loaded()).generate(["a", "b", "c"], GREEDY)]

    def fail(plan: StepPlan) -> None:
        if 1 in sequences(plan) and house.toy.num_steps >= 20:
            raise InvariantError("sequence 1: its largest logit is not a number; the weights are damaged")

    house.toy.on_step = fail
    llm = LLM.from_loaded(house.loaded())
    house.toy.num_steps = 18
    outputs = llm.generate(["a", "b", "c"], GREEDY)
    assert [o.outputs[0].finish_reason for o in outputs] == ["length", "error", "length"]
    assert [o.outputs[0].text for o in outputs] == [expected[0], expected[1][:2], expected[2]]
    assert outputs[1].finished
    assert "its largest logit is not a number" in str(outputs[1].outputs[0].stop_reason)
    assert idle(llm) and llm.stats().finished["error"] == 1


def test_only_the_named_continuation_ends(house: Any) -> None:
    def fail(plan: StepPlan) -> None:
        if 1 in sequences(plan):
            raise InvalidParams("sequence 1: allowed_token_ids and bad_words leave no token")

    house.toy.on_step = fail
    outputs = LLM.from_loaded(house.loaded()).generate("a", GREEDY.clone(n=3, temperature=1.0, seed=1))[0].outputs
    assert [o.finish_reason for o in outputs] == ["length", "error", "length"]
    assert [len(o.token_ids) for o in outputs] == [12, 0, 12]


def test_a_step_that_fails_once_is_not_noticed(house: Any) -> None:
    expected = LLM.from_loaded(house.loaded()).generate(["a", "b"], GREEDY)
    failures = iter([5, 9])
    due = next(failures)

    def fail(plan: StepPlan) -> None:
        nonlocal due
        if house.toy.num_steps == due:
            due = next(failures, -1)
            raise MemoryError("no room for a moment")

    house.toy.num_steps, house.toy.on_step = 0, fail
    llm = LLM.from_loaded(house.loaded())
    outputs = llm.generate(["a", "b"], GREEDY)
    assert [o.outputs for o in outputs] == [o.outputs for o in expected]
    assert llm.stats().num_failed_steps == 2


def test_of_an_error_that_names_nobody_the_guilty_one_is_found(house: Any) -> None:
    prompts = [f"prompt {i}" for i in range(7)]
    expected = LLM.from_loaded(house.loaded()).generate(prompts, GREEDY)
    guilty = tuple(house.tokenizer.encode("prompt 4"))

    def fail(plan: StepPlan) -> None:
        tasks = [task for work in plan.work for task in work.samples]
        if any(tuple(task.prompt_token_ids) == guilty and len(task.output_token_ids) == 3 for task in tasks):
            raise OSError("the device is gone")

    house.toy.on_step = fail
    llm = LLM.from_loaded(house.loaded())
    outputs = llm.generate(prompts, GREEDY)
    ended = outputs.pop(4).outputs[0]
    assert (ended.finish_reason, ended.stop_reason, len(ended.token_ids)) == ("error", "OSError: the device is gone", 3)
    del expected[4]
    assert [o.outputs for o in outputs] == [o.outputs for o in expected]
    assert idle(llm)


def test_a_failing_prompt_step_ends_all_continuations(house: Any) -> None:
    def fail(plan: StepPlan) -> None:
        raise RuntimeError("never works")

    house.toy.on_step = fail
    llm = LLM.from_loaded(house.loaded(max_num_batched_tokens=8))
    outputs = llm.generate(["a long prompt in several parts", "b"], GREEDY.clone(n=2, temperature=1.0))
    assert [[o.finish_reason for o in output.outputs] for output in outputs] == [["error"] * 2] * 2
    assert idle(llm)
    house.toy.on_step = lambda plan: None
    assert llm.generate("a", GREEDY)[0].outputs[0].finish_reason == "length"


def test_ctrl_c_aborts_the_call_and_leaves_the_engine_usable(house: Any) -> None:
    expected = LLM.from_loaded(house.loaded()).generate("a", GREEDY)[0].outputs[0].text

    def press(plan: StepPlan) -> None:
        if house.toy.num_steps == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        llm = LLM.from_loaded(house.loaded())
        house.toy.num_steps, house.toy.on_step = 0, press
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["a", "b"], GREEDY)
        assert house.toy.num_steps == 5, "the step was completed"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    house.toy.on_step = lambda plan: None
    assert idle(llm) and llm.stats().finished["abort"] == 2
    assert llm.generate("a", GREEDY)[0].outputs[0].text == expected


def test_an_interrupt_inside_a_step_leaves_the_engine_usable(house: Any) -> None:
    def press(plan: StepPlan) -> None:
        if house.toy.num_steps == 4:
            house.toy.num_steps = 100
            raise KeyboardInterrupt

    house.toy.on_step = press
    llm = LLM.from_loaded(house.loaded())
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["a", "b"], GREEDY)
    assert idle(llm)
    assert llm.generate("a", GREEDY)[0].finished


# -- threads and life --------------------------------------------------------------------------------------------------


def test_threads_take_turns(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    expected = {f"prompt {i}": llm.generate(f"prompt {i}", GREEDY)[0].outputs[0].text for i in range(6)}
    found: dict[str, str] = {}

    def call(numbers: range) -> None:
        for output in llm.generate([f"prompt {i}" for i in numbers], GREEDY):
            found[str(output.prompt)] = output.outputs[0].text

    threads = [threading.Thread(target=call, args=(range(start, start + 2),)) for start in (0, 2, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_a_closed_llm_says_so(house: Any) -> None:
    with LLM.from_loaded(house.loaded()) as llm:
        assert llm.generate("a", GREEDY)[0].finished
        tokenizer = llm.get_tokenizer()
        assert tokenizer is llm.get_tokenizer() and tokenizer.encode("a b") == house.tokenizer.encode("a b")
        chat = [{"role": "user", "content": "a"}]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert text == llm.chat(chat, GREEDY)[0].prompt
    llm.close()
    for call in (lambda: llm.generate("a", GREEDY), llm.stats, llm.get_tokenizer):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_no_bar_where_there_is_no_terminal(house: Any, capsys: pytest.CaptureFixture[str]) -> None:
    LLM.from_loaded(house.loaded()).generate("a", GREEDY, use_tqdm=True)
    assert capsys.readouterr().err == ""


def test_a_bar_on_a_terminal_when_wanted(
    house: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    llm = LLM.from_loaded(house.loaded())
    llm.generate("a", GREEDY, use_tqdm=False)
    assert capsys.readouterr().err == ""
    llm.generate(["a", "b"], GREEDY)
    assert "2/2" in capsys.readouterr().err


def test_one_by_engine_args(monkeypatch: pytest.MonkeyPatch, house: Any) -> None:
    loaded = house.loaded(max_num_seqs=3)
    asked: list[EngineConfig] = []
    monkeypatch.setattr(front_door, "load", lambda config, **_: asked.append(config) or loaded)
    args = EngineArgs("fox", max_num_seqs=3, trust_remote_code=True)
    with LLM.from_engine_args(args) as llm:
        assert asked == [args] and llm.is_running and not llm.errored
        assert llm.generate("a", GREEDY)[0].finished
    assert llm.is_stopped
    with pytest.raises(ConfigError, match="engine_args must be EngineArgs, got dict"):
        LLM.from_engine_args({"model": "fox"})  # type: ignore[arg-type]


def test_what_only_vllm_has_is_told(house: Any) -> None:
    llm = LLM.from_loaded(house.loaded())
    message = [{"role": "user", "content": "hi"}]
    taken: Any = {"tokenization_kwargs": None, "chat_template_content_format": "auto"}
    assert llm.chat(message, GREEDY, **taken)[0].finished
    refused: Any = {"tokenization_kwargs": {"truncation": True}}
    with pytest.raises(UnsupportedFeature, match="truncate_prompt_tokens of the parameters"):
        llm.generate("a", GREEDY, **refused)
    with pytest.raises(UnsupportedFeature, match=r"prompts are {.prompt_token_ids"):
        llm.generate("a", GREEDY, **{"prompt_token_ids": [[1]]})  # type: ignore[arg-type]
    with pytest.raises(UnsupportedFeature, match="PoolingParams has it"):
        llm.embed("a", **{"truncate_prompt_tokens": 3})  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match=r"LLM.collective_rpc is vLLM's"):
        llm.collective_rpc("x")  # type: ignore[attr-defined]
    assert not hasattr(llm, "llm_engine") and not hasattr(llm, "nowhere")


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="max_num_seqs"):
        LLM("nowhere", max_num_seq=3)
