"""The page: whole HTML, nothing from elsewhere, the figures on it, and a mark for every request."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser

import pytest

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.metrics import METRICS, Wanted
from albireo.bench.serving.outcome import Outcome
from albireo.bench.serving.page import page
from albireo.bench.serving.plots import bucket_s, ticks
from albireo.bench.serving.result import Setup, result_of

_VOID = {"meta", "rect", "line", "polyline", "polygon"}


class Tree(HTMLParser):
    """Counts elements by name and class; fails where one is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._open: list[str] = []
        self.counts: dict[str, int] = {}
        self.links: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for name in (tag, *(f"{tag}.{kind}" for kind in (given.get("class") or "").split())):
            self.counts[name] = self.counts.get(name, 0) + 1
        self.links += [value for key, value in attrs if key in ("src", "href")]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self._open.pop() == tag


def outcome(i, **fields):
    itl_s = [0.01 * (1 + i % 3)] * 9
    some = {"start_s": 100 + 0.1 * i, "queue_s": 0.05, "ttft_s": 0.05, "itl_s": itl_s, "latency_s": 0.05 + sum(itl_s)}
    return Outcome(**{**some, "prompt_len": 5, "num_output_tokens": 10, "text": "private words", **fields})


def made(outcomes, **fields):
    run = LoadRun(outcomes, 100.0, 0.1 * len(outcomes) + 1)
    setup = Setup(**{"backend": "openai", "model_id": "a <b> model", "num_prompts": len(outcomes), **fields})
    wanted = Wanted(metrics=METRICS, goodput={"ttft": 60.0})
    result = result_of(run, setup, wanted, datetime(2026, 1, 2))
    return page(run, result, setup, wanted, {"server": "http://127.0.0.1:8000/v1/completions"})


def test_a_page():
    text = made([outcome(i) for i in range(20)] + [outcome(20, error="HTTP 429: <no>")], max_concurrency=4)
    tree = Tree(text)
    assert tree.links == []
    assert "url(" not in text and "@import" not in text and "<script" not in text
    # Over time two, distributions four, the requests.
    assert tree.counts["svg"] == tree.counts["svg"] == 7
    for kind, count in (("queue", 21), ("prefill", 20), ("decode", 20), ("failed", 1)):
        assert tree.counts[f"rect.{kind}"] == count
    assert "private words" not in text
    assert "a &lt;b&gt; model" in text and "<b> model" not in text
    assert "1 requests failed: HTTP 429: &lt;no&gt;" in text
    assert "21 requests, all at once, at most 4 at a time; 1 failed" in text
    assert ">10</text>" in text  # the axis of time
    assert "Client-side Queueing" in text


def test_bars_of_a_distribution_hold_every_value():
    text = made([outcome(i) for i in range(20)])
    figure = next(part for part in text.split("<figure>") if part.startswith("<figcaption>Inter-token"))
    counted = sum(int(count.replace(",", "")) for count in re.findall(r"ms: ([\d,]+)</title>", figure))
    assert counted == 20 * 9
    assert "P50 20" in figure and "P99 30" in figure


def test_many_requests_are_thinned_out_and_it_is_said():
    text = made([outcome(i, queue_s=0.0) for i in range(1000)])
    tree = Tree(text)
    assert tree.counts["rect.prefill"] == 334
    assert "Timeline of 334 of 1,000 requests" in text


def test_nothing_succeeded():
    text = made([outcome(i, error="refused", itl_s=[], latency_s=0.0) for i in range(3)])
    assert Tree(text).counts["rect.failed"] == 3
    assert "Distributions" not in text


def test_a_single_answer_of_one_token():
    assert Tree(made([outcome(0, itl_s=[], latency_s=0.05, num_output_tokens=1)])).counts["svg"] >= 4


@pytest.mark.parametrize("most", [0.004, 0.5, 1.0, 7.3, 99.0, 12345.0])
def test_ticks_are_round_and_few(most):
    found = ticks(most, 5)
    assert found[0] == 0 and found[-1] <= most * (1 + 1e-9)
    assert 2 <= len(found) <= 6


def test_stretches_of_time_are_round():
    assert [bucket_s(each) for each in (0.1, 5.0, 60.0, 3600.0)] == [0.001, 0.05, 0.5, 50.0]
