"""measure_throughput: the median run is reported, tokens are counted as vLLM counts them."""

from __future__ import annotations

from statistics import median

import pytest

from albireo.bench.throughput import measure_throughput, throughput_lines
from albireo.bench.timed import Sampling
from albireo.bench.workload import RandomWorkload
from albireo.config import EngineConfig
from albireo.errors import ConfigError

WORKLOAD = RandomWorkload(num_prompts=4, input_len=10, output_len=3)


def plain(rounds, what):
    return rounds


def test_figures():
    found = measure_throughput(EngineConfig(), WORKLOAD, Sampling(n=2), 3, plain)
    assert found["elapsed_time"] == median(found["elapsed_times"])
    assert len(found["elapsed_times"]) == 3
    assert found["num_requests"] == 4
    assert found["total_num_tokens"] == 4 * (10 + 2 * 3)
    assert found["num_output_tokens"] == 4 * 2 * 3
    shown = "\n".join(throughput_lines(found))
    assert "4 requests, 40 prompt and 24 output tokens, 3 runs" in shown


def test_impossible():
    with pytest.raises(ConfigError, match="num_iters=0"):
        measure_throughput(EngineConfig(), WORKLOAD, Sampling(), 0, plain)
    with pytest.raises(ConfigError, match="context"):
        measure_throughput(EngineConfig(max_model_len=12), WORKLOAD, Sampling(), 1, plain)
