"""The line of timings, counted by hand."""

from __future__ import annotations

from albireo.cli.timings import timings_line
from albireo.outputs import CompletionOutput, RequestMetrics, RequestOutput


def output(num_prompt, num_written, arrival, first, last, cached=0):
    metrics = RequestMetrics(arrival, first_token_s=first, last_token_s=last)
    written = [CompletionOutput(0, "", [1] * num_written)]
    return RequestOutput("", None, [1] * num_prompt, written, True, None, cached, metrics)


def test_one_request_has_the_speed_after_the_first_token():
    line = timings_line([output(5, 11, 10.0, 10.5, 12.5)], load_s=0.25)
    assert line == "loaded in 250 ms, 1 prompt of 5 tokens, first token after 500 ms, 11 tokens in 2.50 s, 5 tok/s"


def test_several_have_the_speed_of_the_whole():
    line = timings_line([output(5, 10, 0.0, 1.0, 2.0, cached=3), output(7, 30, 0.0, 3.0, 4.0)])
    assert line == "2 prompts of 12 tokens (3 cached), first token after 2.00 s, 40 tokens in 4.00 s, 10 tok/s"


def test_without_any_token():
    assert timings_line([output(5, 0, 0.0, None, None)]) == "1 prompt of 5 tokens"
