"""LLMEngine over a toy model: steps, what each tells, aborts, refusals."""

from __future__ import annotations

import time
from typing import Any

import pytest

from albireo.api.llm import LLM
from albireo.api.llm_engine import LLMEngine
from albireo.errors import EngineError, InvalidParams, UnsupportedFeature
from albireo.outputs import RequestOutput
from albireo.params import PoolingParams, RequestOutputKind, SamplingParams
from albireo.step import StepPlan

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


def told(engine: LLMEngine) -> dict[str, list[RequestOutput]]:
    found: dict[str, list[RequestOutput]] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
    assert engine.get_num_unfinished_requests() == 0
    return found


def test_requests_that_come_while_others_run_are_told_as_llm_has_them(house: Any) -> None:
    wanted = {text: LLM.from_loaded(house.loaded()).generate(text, GREEDY)[0].outputs[0].text for text in ("a", "bb")}
    engine = LLMEngine.from_loaded(house.loaded())
    assert engine.step() == [] and not engine.has_unfinished_requests()
    engine.add_request("one", "a", GREEDY)
    first = engine.step()
    engine.add_request("two", {"prompt": "bb"}, GREEDY)
    assert engine.get_num_unfinished_requests() == 2
    found = told(engine)
    assert [output.request_id for output in first] == ["one"] and not first[0].finished
    assert found["one"][-1].outputs[0].text == wanted["a"] and found["two"][-1].outputs[0].text == wanted["bb"]
    for outputs in found.values():
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]


def test_outputs_are_of_the_kind_that_is_asked_for(house: Any) -> None:
    engine = LLMEngine.from_loaded(house.loaded())
    for kind in RequestOutputKind:
        engine.add_request(kind.name, "a", GREEDY.clone(output_kind=kind))
    found = told(engine)
    texts = {name: [output.outputs[0].text for output in outputs] for name, outputs in found.items()}
    assert "".join(texts["DELTA"]) == texts["CUMULATIVE"][-1] == texts["FINAL_ONLY"][0]
    assert len(texts["DELTA"]) == len(texts["CUMULATIVE"]) == 6 and len(texts["FINAL_ONLY"]) == 1


def test_an_aborted_request_is_told_no_more(house: Any) -> None:
    engine = LLMEngine.from_loaded(house.loaded())
    for name in ("one", "two", "three"):
        engine.add_request(name, "a", GREEDY)
    engine.step()
    engine.abort_request("one")
    engine.abort_request(["two", "nobody"])
    assert engine.get_num_unfinished_requests() == 1 and set(told(engine)) == {"three"}
    engine.add_request("one", "a", GREEDY)
    assert set(told(engine)) == {"one"}


def test_what_is_refused_leaves_nothing_behind(house: Any) -> None:
    engine = LLMEngine.from_loaded(house.loaded())
    refused: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((5, "a", GREEDY), InvalidParams, "request_id=5"),
        (("r", "a", {"max_tokens": 3}), InvalidParams, "must be SamplingParams, got dict"),
        (("r", "a", PoolingParams()), UnsupportedFeature, "LLM.encode"),
        (("r", [10**6], GREEDY), InvalidParams, "1000000"),
    ]
    for given, error, said in refused:
        with pytest.raises(error, match=said):
            engine.add_request(*given)
    assert not engine.has_unfinished_requests() and engine.get_num_unfinished_requests() == 0
    engine.add_request("r", "a", GREEDY)
    with pytest.raises(InvalidParams, match="'r' is in use"):
        engine.add_request("r", "a", GREEDY)
    assert set(told(engine)) == {"r"}


def test_one_that_fails_says_so_and_the_others_go_on(house: Any) -> None:
    loaded = house.loaded()
    guilty = tuple(house.toy.ids("bad"))

    def on_step(plan: StepPlan) -> None:
        for work in plan.work:
            if any(tuple(task.prompt_token_ids) == guilty for task in work.samples):
                raise ValueError("no")

    house.toy.on_step = on_step
    engine = LLMEngine.from_loaded(loaded)
    engine.add_request("bad", "bad", GREEDY)
    engine.add_request("good", "good", GREEDY)
    ends = {name: outputs[-1].outputs[0] for name, outputs in told(engine).items()}
    assert (ends["bad"].finish_reason, ends["good"].finish_reason) == ("error", "length")


def test_when_it_came_in_is_counted_from(house: Any) -> None:
    engine = LLMEngine.from_loaded(house.loaded())
    came = time.time() - 100
    engine.add_request("r", "a", GREEDY, arrival_time=came)
    metrics = told(engine)["r"][-1].metrics
    assert metrics is not None and metrics.first_token_latency is not None
    assert 99 < metrics.first_token_latency < 200 and abs(metrics.arrival_time - came) < 1


def test_a_closed_one_says_so(house: Any) -> None:
    engine = LLMEngine.from_loaded(house.loaded())
    engine.add_request("r", "a", GREEDY)
    engine.close()
    engine.close()
    for call in (engine.step, engine.stats, engine.has_unfinished_requests):
        with pytest.raises(EngineError, match="LLMEngine is closed"):
            call()
    with pytest.raises(AttributeError, match=r"LLMEngine.collective_rpc is vLLM's"):
        engine.collective_rpc("x")  # type: ignore[attr-defined]
