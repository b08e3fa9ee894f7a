"""What a record makes of updates: nothing before somebody looks, and the right ends."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.api.requests.output_text import OutputText
from albireo.api.requests.request_record import RequestRecord
from albireo.api.requests.submission import Submission
from albireo.engine.request import RequestProgress, SequenceUpdate
from albireo.outputs import FinishReason, RequestMetrics
from albireo.params import SamplingParams
from albireo.step import TokenLogprobs


def update(
    token_ids: list[int], reason: FinishReason | None = None, stop_reason: int | str | None = None, index: int = 0
) -> SequenceUpdate:
    progress = RequestProgress(RequestMetrics(1.0), num_cached_tokens=3)
    return SequenceUpdate("r", index, token_ids, None, reason, stop_reason, reason is not None, progress)


def record(house: Any, **params: Any) -> RequestRecord:
    return RequestRecord("r", Submission("p", house.toy.ids("p"), SamplingParams(**params)), house.tokenizer)


def test_text_is_made_when_somebody_looks(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = OutputText.read

    def noting(self: OutputText, token_ids: list[int]) -> None:
        reads.append(len(token_ids))
        read(self, token_ids)

    monkeypatch.setattr(OutputText, "read", noting)
    quiet = record(house)
    for token in house.toy.ids("Hello", "Ġworld", "!"):
        quiet.take(update([token]))
    assert reads == []
    assert quiet.output().outputs[0].text == "Hello world!"
    assert reads == [3]
    watched = record(house, stop="zzz")
    watched.take(update(house.toy.ids("Hello")))
    assert reads == [3, 1]


def test_take_tells_which_stop_string_ends_the_continuation(house: Any) -> None:
    subject = record(house, stop=["wor", "zzz"])
    assert subject.take(update(house.toy.ids("Hello"))) is None
    assert subject.take(update(house.toy.ids("Ġworld"))) == "wor"
    assert subject.take(update([], "stop", "wor")) is None
    output = subject.output()
    assert (output.outputs[0].text, output.outputs[0].stop_reason) == ("Hello ", "wor")
    assert (output.finished, output.num_cached_tokens, subject.num_output_tokens) == (True, 3, 2)


@pytest.mark.parametrize("reason", [None, "length", "stop"])
def test_a_stop_string_within_the_tokens_of_one_step_ends_them(house: Any, reason: FinishReason | None) -> None:
    """Several tokens come in one step where drafts come true; those behind the stop string never were."""
    subject = record(house, stop=["wor", "zzz"], logprobs=0)
    tokens = house.toy.ids("Hello", "Ġworld", "!", "lo")
    news = update(tokens, reason)
    news.logprobs = [TokenLogprobs([token], [-1.0], [1]) for token in tokens]
    stop = subject.take(news)
    assert stop == ("wor" if reason is None else None), "an ended continuation needs no end"
    if reason is None:
        subject.take(update([], "stop", "wor"))
    (output,) = subject.output().outputs
    assert (output.text, output.token_ids, len(output.logprobs or [])) == ("Hello ", tokens[:2], 2)
    assert (output.finish_reason, output.stop_reason) == ("stop", "wor")


def test_a_stop_string_with_the_last_token_of_a_step(house: Any) -> None:
    subject = record(house, stop=["wor"])
    assert subject.take(update(house.toy.ids("Hello", "!", "Ġworld"))) == "wor"
    assert subject.num_output_tokens == 3


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_abort_keeps_its_reason_beside_a_stop_string_in_held_text(house: Any, reason: FinishReason) -> None:
    # The last byte of é never came, so the text ends in U+FFFD, which is the stop string.
    subject = record(house, stop="\ufffd")
    subject.take(update(house.toy.ids("aé")[:-1]))
    subject.take(update([], reason, "told so"))
    only = subject.output().outputs[0]
    assert (only.text, only.finish_reason, only.stop_reason) == ("a", reason, "told so")


def test_a_stop_string_in_text_held_to_the_end_is_the_reason(house: Any) -> None:
    subject = record(house, stop="\ufffd")
    subject.take(update(house.toy.ids("aé")[:-1], "length"))
    only = subject.output().outputs[0]
    assert (only.text, only.finish_reason, only.stop_reason) == ("a", "stop", "\ufffd")


def test_a_stop_string_goes_before_a_repetition_that_the_same_token_ends(house: Any) -> None:
    subject = record(house, stop="wor")
    subject.take(update(house.toy.ids("Hello", "Ġworld"), "repetition", "repetition_detected"))
    only = subject.output().outputs[0]
    assert (only.text, only.finish_reason, only.stop_reason) == ("Hello ", "stop", "wor")


def test_before_the_first_update_there_is_an_empty_output(house: Any) -> None:
    output = record(house, n=2, logprobs=1).output()
    assert [o.text for o in output.outputs] == ["", ""]
    assert (output.metrics, output.prompt_logprobs, output.num_cached_tokens, output.finished) == (None, None, 0, False)
    assert output.outputs[0].logprobs == [] and output.outputs[0].cumulative_logprob == 0
