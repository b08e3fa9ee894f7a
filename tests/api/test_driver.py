"""The driver by itself: who is reported, who is to blame when a step fails."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.api.driver import Driver
from albireo.api.requests.submission import Submission
from albireo.errors import InvalidParams
from albireo.params import SamplingParams
from albireo.step import StepPlan

PARAMS = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


def make(house: Any, **config: Any) -> Driver:
    loaded = house.loaded(**config)
    return Driver(loaded.settings, loaded.execute, loaded.tokenizer)


def submission(house: Any, text: str, params: SamplingParams = PARAMS) -> Submission:
    return Submission(text, house.tokenizer.encode(text), params)


def test_a_step_returns_those_with_news(house: Any) -> None:
    driver = make(house, max_num_seqs=2)
    for name in "abc":
        driver.add(name, submission(house, name))
    seen = []
    while driver.has_work():
        seen.append([(record.request_id, record.is_finished) for record in driver.step()])
    running, ending = [("a", False), ("b", False)], [("a", True), ("b", True)]
    assert seen == [running] * 3 + [ending] + [[("c", False)]] * 3 + [[("c", True)]]
    assert driver.step() == []


def test_a_refused_request_changes_nothing(house: Any) -> None:
    driver = make(house)
    first = driver.add("a", submission(house, "a"))
    with pytest.raises(InvalidParams, match="'a' is in use"):
        driver.add("a", submission(house, "b"))
    while driver.has_work():
        assert driver.step() == [first]
    assert first.is_finished


def test_abort_returns_the_finished_record_once(house: Any) -> None:
    driver = make(house)
    record = driver.add("a", submission(house, "a", PARAMS.clone(n=3, temperature=1.0)))
    driver.step()
    assert driver.abort("a") is record and record.is_finished
    assert [o.finish_reason for o in record.output().outputs] == ["abort"] * 3
    assert driver.abort("a") is None
    assert not driver.has_work()


def test_a_request_aborted_before_it_ran_is_finished_too(house: Any) -> None:
    driver = make(house)
    driver.add("a", submission(house, "a"))
    record = driver.abort("a")
    assert record is not None and record.is_finished
    output = record.output()
    assert (output.finished, output.outputs[0].text, output.outputs[0].token_ids) == (True, "", [])


def test_an_output_does_not_change_afterwards(house: Any) -> None:
    driver = make(house)
    record = driver.add("a", submission(house, "a", PARAMS.clone(logprobs=1, prompt_logprobs=1)))
    driver.step()
    early = record.output()
    copy = (early.outputs[0].text, list(early.outputs[0].token_ids), list(early.outputs[0].logprobs or []))
    times = (early.metrics and early.metrics.finished_s, early.metrics and early.metrics.last_token_s)
    while driver.has_work():
        driver.step()
    assert (early.outputs[0].text, early.outputs[0].token_ids, early.outputs[0].logprobs) == copy
    assert (early.metrics and early.metrics.finished_s, early.metrics and early.metrics.last_token_s) == times
    assert record.output().metrics != early.metrics


def test_who_is_named_after_it_ended_is_not_to_blame(house: Any) -> None:
    driver = make(house)
    driver.add("a", submission(house, "a"))
    driver.add("b", submission(house, "b"))
    driver.abort("a")

    def fail(plan: StepPlan) -> None:
        raise RuntimeError("sequence 0 was seen, long ago")

    house.toy.on_step = fail
    assert [record.request_id for record in driver.step()] == ["b"]
    assert not driver.has_work()


def test_who_asks_for_what_cannot_be_ends_in_one_line_of_the_log(house: Any, caplog: pytest.LogCaptureFixture) -> None:
    driver = make(house)
    driver.add("a", submission(house, "a"))
    driver.add("b", submission(house, "b"))

    def refuse(plan: StepPlan) -> None:
        if any(work.seq_id == 0 for work in plan.work):
            raise InvalidParams("sequence 0: allowed_token_ids leave none of 265 tokens")

    house.toy.on_step = refuse
    (record,) = driver.step()
    assert (record.request_id, record.output().outputs[0].finish_reason) == ("a", "error")
    assert "leave none" in str(record.output().outputs[0].stop_reason)
    assert len(caplog.records) == 1 and caplog.records[0].exc_info is None
    while driver.has_work():
        (record,) = driver.step()
    assert record.output().outputs[0].finish_reason == "length"


def test_who_is_named_in_the_text_of_another_is_not_to_blame(house: Any) -> None:
    """What a grammar says of itself may be what its request wrote."""
    driver = make(house)
    driver.add("a", submission(house, "a"))
    driver.add("b", submission(house, "b"))

    def refuse(plan: StepPlan) -> None:
        if any(work.seq_id == 1 for work in plan.work):
            raise InvalidParams("sequence 1: structured_outputs cannot go on: nothing follows 'sequence 0'")

    house.toy.on_step = refuse
    (record,) = driver.step()
    assert (record.request_id, record.output().outputs[0].finish_reason) == ("b", "error")
    while driver.has_work():
        (record,) = driver.step()
    assert (record.request_id, record.output().outputs[0].finish_reason) == ("a", "length")


def test_a_plan_that_fails_ends_everything(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make(house)
    driver.add("a", submission(house, "a", PARAMS.clone(n=2, temperature=1.0)))
    driver.add("b", submission(house, "b"))

    def fail(*_: Any) -> None:
        raise RuntimeError("the books do not balance")

    with monkeypatch.context() as patch:
        patch.setattr("albireo.engine.scheduler.Scheduler.plan", fail)
        records = driver.step()
    assert sorted(record.request_id for record in records) == ["a", "b"]
    assert all(record.is_finished for record in records)
    driver.add("c", submission(house, "c"))
    while driver.has_work():
        records = driver.step()
    assert records[0].output().outputs[0].finish_reason == "length"


def test_ctrl_c_is_not_taken_for_a_failed_step(house: Any) -> None:
    driver = make(house)
    driver.add("a", submission(house, "a"))

    def press(plan: StepPlan) -> None:
        raise KeyboardInterrupt

    house.toy.on_step = press
    with pytest.raises(KeyboardInterrupt):
        driver.step()
    assert driver.has_work()
