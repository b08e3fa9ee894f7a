"""Times of one answer, by vLLM's definitions, with the clock in the test's hand."""

from __future__ import annotations

import pytest

from albireo.bench.serving.outcome import Outcome, StreamError, StreamReader, error_text


def chunk(text="x", finish_reason=None):
    return {"choices": [{"index": 0, "text": text, "finish_reason": finish_reason}]}


def read(*events, start=10.0, is_done=True):
    """events: (time, event)."""
    outcome = Outcome(start_s=start, prompt_len=3)
    reader = StreamReader(outcome)
    for now, event in events:
        reader.take(event, now)
    if is_done:
        reader.done()
    reader.close()
    return outcome


def test_times_and_text():
    outcome = read((10.5, chunk("a")), (10.75, chunk("b")), (11.75, chunk("", "stop")))
    assert (outcome.ttft_s, outcome.itl_s, outcome.latency_s) == (0.5, [0.25, 1.0], 1.75)
    assert (outcome.text, outcome.succeeded) == ("ab", True)


def test_usage_counts_tokens_and_takes_no_time():
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 8}}
    outcome = read((10.5, chunk("a b c d")), (11.0, chunk("e f g h", "length")), (99.0, usage))
    assert (outcome.num_output_tokens, outcome.prompt_len) == (8, 9)
    assert (outcome.itl_s, outcome.latency_s) == ([0.5], 1.0)


def test_a_running_usage_ends_with_the_last():
    events = [(11.0 + i, chunk() | {"usage": {"completion_tokens": i + 1}}) for i in range(3)]
    outcome = read(*events)
    assert (outcome.num_output_tokens, outcome.prompt_len, len(outcome.itl_s)) == (3, 3, 2)


def test_without_usage_there_is_no_count():
    assert read((11.0, chunk() | {"usage": None})).num_output_tokens is None


def test_of_a_chat_only_output_counts_as_in_vllm():
    deltas = [
        {"role": "assistant", "content": ""},
        {"reasoning": "b"},
        {"content": "a"},
        {"content": ""},  # a token that is not shown
        {"tool_calls": [{"index": 0}]},
        {},
    ]
    events = [(11.0 + i, {"choices": [{"delta": delta}]}) for i, delta in enumerate(deltas)]
    events[-1][1]["choices"][0]["finish_reason"] = "stop"
    outcome = read(*events, is_done=False)
    assert (outcome.ttft_s, outcome.itl_s, outcome.latency_s) == (2.0, [1.0, 1.0, 1.0], 5.0)
    assert outcome.text == "a"


def test_usage_may_come_with_the_end_of_a_chat():
    end = {"choices": [{"delta": {}, "finish_reason": "length"}], "usage": {"completion_tokens": 4, "prompt_tokens": 2}}
    outcome = read((11.0, {"choices": [{"delta": {"role": "assistant", "content": "a"}}]}), (12.0, end))
    assert (outcome.num_output_tokens, outcome.prompt_len, outcome.latency_s) == (4, 2, 1.0)


@pytest.mark.parametrize(
    ("events", "is_done", "said"),
    [
        ([(11.0, chunk()), (12.0, {"error": {"message": "engine died", "code": 500}})], True, "engine died"),
        ([(11.0, [1])], True, "list, not an object"),
        ([(11.0, {"choices": [], "usage": {"completion_tokens": 0}})], True, "without a token"),
        ([], True, "without a token"),
        ([(11.0, chunk())], False, "broke off"),
    ],
)
def test_failures(events, is_done, said):
    with pytest.raises(StreamError, match=said):
        read(*events, is_done=is_done)


def test_a_finish_reason_is_an_end_too():
    assert read((11.0, chunk("a", "stop")), is_done=False).succeeded


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "two\nlines"}}, "two lines"),
        ({"error": "plain"}, "plain"),
        ({"detail": "of FastAPI"}, "of FastAPI"),
        ({"message": "m" * 1000}, "m" * 300),
        (["odd"], "['odd']"),
    ],
)
def test_error_bodies(body, said):
    assert error_text(body) == said
