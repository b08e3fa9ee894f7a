"""The figures as vLLM saves and prints them: its keys, its block, and what is said beside."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.metrics import METRICS, Wanted
from albireo.bench.serving.outcome import Outcome
from albireo.bench.serving.result import Setup, check_metadata, result_lines, result_of, warning_lines, without_details
from albireo.errors import ConfigError

NOW = datetime(2026, 3, 4, 5, 6, 7)
#: What vllm 0.33.0 wrote with --save-result --save-detailed --goodput --max-concurrency --request-rate and
#: --metadata a=b, up to the latencies.
# fmt: off
VLLM_KEYS = [
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "a", "request_rate",
    "burstiness", "max_concurrency", "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput", "input_lens",
    "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts", "errors",
    "max_output_tokens_per_s", "max_concurrent_requests", "rtfx",
]
# fmt: on
OURS = {"failures", "num_short_outputs", "num_without_usage", "max_send_lateness_s"}


def setup(**fields):
    return Setup(**{"backend": "openai", "model_id": "org/m", "num_prompts": 3, **fields})


def outcome(**fields):
    some = {
        "scheduled_s": 5.5,
        "start_s": 5.0,
        "ttft_s": 0.1,
        "itl_s": [0.1],
        "latency_s": 0.2,
        "prompt_len": 4,
        "num_output_tokens": 2,
    }
    return Outcome(**{**some, **fields})


RUN = LoadRun([outcome(), outcome(start_s=5.5, text="private"), outcome(error="HTTP 429: no")], 5.0, 2.0)


def test_keys_are_vllms():
    wanted = Wanted(metrics=METRICS, percentiles=(50.0, 99.9), goodput={"ttft": 99.0})
    found = result_of(RUN, setup(metadata={"a": "b"}, request_rate=4.0, max_concurrency=2), wanted, NOW)
    latencies = {f"{which}_{name}_ms" for name in METRICS for which in ("mean", "median", "std", "p50", "p99.9")}
    assert set(found) == {*VLLM_KEYS, *latencies, *OURS}
    assert found["a"] == "b"
    assert (found["request_rate"], found["max_concurrency"], found["date"]) == (4.0, 2, "20260304-050607")
    assert found["errors"] == ["", "", "HTTP 429: no"]
    assert found["request_goodput"] == 0.0


def test_details_are_left_out_as_in_vllm():
    found = without_details(result_of(RUN, setup(), Wanted(), NOW))
    dropped = {"input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors"}
    assert not dropped & set(found)
    assert "private" not in str(found)
    assert set(found) >= {*VLLM_KEYS} - dropped - {"a"}
    assert (found["request_rate"], found["request_goodput"]) == ("inf", None)


def test_metadata_cannot_pass_for_a_figure():
    with pytest.raises(ConfigError, match=r"--metadata completed="):
        check_metadata(setup(metadata={"completed": "99"}), Wanted())
    with pytest.raises(ConfigError, match=r"--metadata p99_itl_ms="):
        check_metadata(setup(metadata={"p99_itl_ms": "0"}), Wanted())
    check_metadata(setup(metadata={"p50_itl_ms": "0", "version": "1"}), Wanted())


def test_the_block():
    wanted = Wanted(percentiles=(50.0, 99.9), goodput={"ttft": 200.0})
    shown = list(result_lines(result_of(RUN, setup(request_rate=4.0, max_concurrency=8), wanted, NOW), wanted))
    assert shown[:5] == [
        "============ Serving Benchmark Result ============",
        "Successful requests:                     2         ",
        "Failed requests:                         1         ",
        "Maximum request concurrency:             8         ",
        "Request rate configured (RPS):           4.00      ",
    ]
    assert "Request goodput (req/s):                 1.00      " in shown
    assert "Output token throughput (tok/s):         2.00      " in shown
    assert "-----Time per Output Token (excl. 1st token)------" in shown
    assert "P99.9 ITL (ms):                          100.00    " in shown
    assert shown[-1] == "=" * 50


def test_warnings():
    late = outcome(scheduled_s=0.0, num_output_tokens=None, wanted_len=9)
    found = result_of(LoadRun([*RUN.outcomes, late], 5.0, 2.0), setup(is_exact_len=True), Wanted(), NOW)
    said = list(warning_lines(found))
    assert said[0] == "1 requests failed: HTTP 429: no"
    assert said[1].startswith("1 answers are shorter than asked for")
    assert said[2].startswith("1 answers came without usage")
    assert "sent a request 5.00 s late" in said[3]
    assert list(warning_lines(result_of(LoadRun(RUN.outcomes[:2], 5.0, 2.0), setup(), Wanted(), NOW)))[1:] == []


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "openai-infqps-m-20260304-050607.json"),
        ({"label": "new", "request_rate": 2.0, "max_concurrency": 8}, "new-2.0qps-concurrency8-m-20260304-050607.json"),
        ({"model_id": "/a/b/"}, "openai-infqps-b-20260304-050607.json"),
    ],
)
def test_file_names_are_vllms(fields, name):
    assert setup(**fields).file_name(NOW) == name
    assert math.isinf(setup().request_rate)
