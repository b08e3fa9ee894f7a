"""measure_latency: warm-up does not count, and the limits are measured round every run."""

from __future__ import annotations

import pytest

from albireo.bench import latency as latency_module
from albireo.bench import limits
from albireo.bench.latency import Latency, latency_lines, measure_latency
from albireo.config import EngineConfig
from albireo.errors import ConfigError

SMALL = {"input_len": 8, "output_len": 4, "batch_size": 2}


def plain(rounds, what):
    return rounds


def test_rounds(monkeypatch):
    order = []
    monkeypatch.setattr(limits.LimitProbe, "measure", _noting(limits.LimitProbe.measure, order, "limit"))
    monkeypatch.setattr(latency_module.TimedEngine, "run", _noting(latency_module.TimedEngine.run, order, "run"))
    rounds = []
    found = measure_latency(
        EngineConfig(),
        Latency(**SMALL, num_iters_warmup=2, num_iters=3),
        lambda each, what: rounds.append((len(each), what)) or each,
    )
    assert order == ["run", "run", "limit", "run", "limit", "run", "limit", "run", "limit"]
    assert rounds == [(2, "Warm-up"), (3, "Runs")]
    assert len(found["latencies"]) == 3
    assert found["num_requests"] == 2
    assert (found["num_prompt_tokens"], found["num_output_tokens"]) == (16, 8)
    shown = latency_lines(found)
    assert any(line.startswith("latency") for line in shown)
    assert "2 requests at once, 16 prompt and 8 output tokens, 3 runs" in "\n".join(shown)


@pytest.mark.parametrize("change", [{"num_iters": 0}, {"num_iters_warmup": -1}, {"input_len": 510}])
def test_impossible(change):
    with pytest.raises(ConfigError):
        measure_latency(EngineConfig(), Latency(**SMALL | change), plain)


def _noting(method, order, what):
    def noted(self, *args):
        order.append(what)
        return method(self, *args)

    return noted
