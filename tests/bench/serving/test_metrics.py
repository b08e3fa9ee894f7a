"""Figures of outcomes, held against those that vLLM computed of the same."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.metrics import (
    Wanted,
    honesty,
    num_good,
    output_len,
    peak_concurrency,
    statistics_ms,
    times_s,
    totals,
    tpot_s,
)
from albireo.bench.serving.outcome import Outcome
from albireo.errors import ConfigError

GIVEN = json.loads((Path(__file__).parent / "vllm_figures.json").read_text())
RUN = LoadRun([Outcome(**each) for each in GIVEN["outcomes"]], 99.0, GIVEN["duration_s"])
WANTED = Wanted(percentiles=tuple(GIVEN["percentiles"]), goodput=GIVEN["goodput"])


def test_totals_are_vllms():
    figures, found = GIVEN["figures"], totals(RUN, WANTED)
    assert found["total_input_tokens"] == figures["total_input"]
    assert found["total_output_tokens"] == figures["total_output"]
    for name in ("completed", "failed", "request_throughput", "request_goodput", "output_throughput", "rtfx"):
        assert found[name] == pytest.approx(figures[name]), name
    assert found["total_token_throughput"] == pytest.approx(figures["total_token_throughput"])
    assert found["max_output_tokens_per_s"] == figures["max_output_tokens_per_s"]
    assert list(map(output_len, RUN.outcomes)) == GIVEN["output_lens"]


@pytest.mark.parametrize("name", ["ttft", "tpot", "itl", "e2el"])
def test_latencies_are_vllms(name):
    figures = GIVEN["figures"]
    found = statistics_ms(times_s(RUN, None, math.inf)[name], name, WANTED.percentiles)
    for which in ("mean", "median", "std"):
        assert found[f"{which}_{name}_ms"] == pytest.approx(figures[f"{which}_{name}_ms"])
    for percentile, value in figures[f"percentiles_{name}_ms"]:
        assert found[f"p{percentile:g}_{name}_ms"] == pytest.approx(value)


def outcome(start=0.0, latency=1.0, **fields):
    return Outcome(start_s=start, latency_s=latency, ttft_s=fields.pop("ttft_s", 0.5), **fields)


def test_tpot_leaves_the_first_token_out():
    assert tpot_s(outcome(latency=2.5, num_output_tokens=5)) == pytest.approx(0.5)
    assert tpot_s(outcome(num_output_tokens=1)) is None


def test_goodput_needs_every_limit_and_takes_the_limit_itself_as_good():
    some = [outcome(num_output_tokens=2), outcome(latency=3.0, num_output_tokens=2), outcome(num_output_tokens=1)]
    assert num_good(some, {"ttft": 500.0}) == 3
    assert num_good(some, {"ttft": 499.0}) == 0
    assert num_good(some, {"e2el": 1000.0, "ttft": 500.0}) == 2
    assert num_good(some, {"tpot": 0.0}) == 1  # of a single token


def test_the_peak_is_what_ran_at_one_moment():
    assert peak_concurrency([outcome(0.0, 1.0), outcome(1.0, 1.0), outcome(2.0, 1.0)]) == 1
    assert peak_concurrency([outcome(0.0, 5.0), outcome(1.0, 1.0), outcome(1.5, 9.0)]) == 3
    assert peak_concurrency([]) == 0


def test_queues_are_a_metric_where_there_is_a_limit():
    run = LoadRun([outcome(queue_s=2.0)], 0.0, 3.0)
    assert "client_queue_time" not in times_s(run, None, 5.0)
    assert times_s(run, 4, 5.0)["client_queue_time"] == [2.0]
    assert times_s(run, 4, 5.0)["e2el_including_client_queue"] == [3.0]
    assert "e2el_including_client_queue" not in times_s(run, 4, math.inf)


def test_nothing_succeeded():
    run = LoadRun([outcome(error="no"), outcome(error="no")], 0.0, 2.0)
    found = totals(run, Wanted(goodput={"ttft": 1.0}))
    assert (found["completed"], found["failed"], found["output_throughput"], found["request_goodput"]) == (0, 2, 0, 0)
    assert statistics_ms([], "ttft", [99.0]) == dict.fromkeys(
        ("mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms"), 0.0
    )
    assert honesty(run, True)["failures"] == {"no": 2}


def test_honesty():
    good = [outcome(num_output_tokens=4, wanted_len=5), outcome(wanted_len=1), outcome(error="a"), outcome(error="b")]
    late = outcome(start=7.0, queue_s=1.0, scheduled_s=4.0, num_output_tokens=5, wanted_len=5)
    found = honesty(LoadRun([*good, late, outcome(error="b")], 0.0, 2.0), True)
    assert list(found["failures"].items()) == [("b", 2), ("a", 1)]
    assert (found["num_short_outputs"], found["num_without_usage"], found["max_send_lateness_s"]) == (1, 1, 2.0)
    assert honesty(LoadRun(good, 0.0, 2.0), False)["num_short_outputs"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metrics": ("ttft", "speed")}, "names 'speed'"),
        ({"goodput": {"itl": 5.0}}, "names 'itl'"),
        ({"goodput": {"ttft": -1.0}}, "at least 0"),
        ({"goodput": {"ttft": math.nan}}, "at least 0"),
        ({"percentiles": (101.0,)}, "holds 101"),
    ],
)
def test_refusals(fields, said):
    with pytest.raises(ConfigError, match=said):
        Wanted(**fields)
