"""Outcomes -> figures, by vLLM's formulas and under its names.

Called by result.py and the report. Times come in seconds and leave in milliseconds where the name says so. Does not
know servers or files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.bench.serving.load import LoadRun
from albireo.bench.serving.outcome import Outcome
from albireo.errors import ConfigError

#: What may be selected, in the order of the report; the last two exist with a maximum concurrency only.
METRICS = ("ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue")
#: What a goodput may be about.
GOODPUT_METRICS = ("ttft", "tpot", "e2el")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to report.

    Fields:
        metrics: of METRICS; percentiles: in [0, 100].
        goodput: most milliseconds a request may take, by name of GOODPUT_METRICS; empty: no goodput.
    """

    metrics: tuple[str, ...] = ("ttft", "tpot", "itl")
    percentiles: tuple[float, ...] = (99.0,)
    goodput: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.metrics:
            if name not in METRICS:
                raise ConfigError(f"--percentile-metrics names {name!r}; there are {', '.join(METRICS)}")
        for name, limit in self.goodput.items():
            if name not in GOODPUT_METRICS:
                raise ConfigError(f"--goodput names {name!r}; there are {', '.join(GOODPUT_METRICS)}")
            if not limit >= 0:
                raise ConfigError(f"--goodput {name}:{limit} is not allowed; give milliseconds, at least 0")
        for percentile in self.percentiles:
            if not 0 <= percentile <= 100:
                raise ConfigError(f"--metric-percentiles holds {percentile}; it must be in [0, 100]")


def output_len(outcome: Outcome) -> int:
    """Tokens of an answer: as the server's usage says; without one, its chunks. 0 for a failed request."""
    if not outcome.succeeded:
        return 0
    return outcome.num_output_tokens or 1 + len(outcome.itl_s)


def tpot_s(outcome: Outcome) -> float | None:
    """Mean time per output token after the first; None for an answer of one token."""
    num_tokens = output_len(outcome)
    return (outcome.latency_s - outcome.ttft_s) / (num_tokens - 1) if num_tokens > 1 else None


def times_s(run: LoadRun, max_concurrency: int | None, request_rate: float) -> dict[str, list[float]]:
    """Every value of each metric there is, over the requests that succeeded."""
    good = [each for each in run.outcomes if each.succeeded]
    found = {
        "ttft": [each.ttft_s for each in good],
        "tpot": [value for each in good if (value := tpot_s(each)) is not None],
        "itl": [gap for each in good for gap in each.itl_s],
        "e2el": [each.latency_s for each in good],
    }
    if max_concurrency is not None:
        found["client_queue_time"] = [each.queue_s for each in good]
        if not math.isinf(request_rate):
            found["e2el_including_client_queue"] = [each.latency_s + each.queue_s for each in good]
    return found


def totals(run: LoadRun, wanted: Wanted) -> dict[str, Any]:
    """Counts and rates under vLLM's keys."""
    good = [each for each in run.outcomes if each.succeeded]
    num_input, num_output = sum(each.prompt_len for each in good), sum(map(output_len, good))
    return {
        "duration": run.duration_s,
        "completed": len(good),
        "failed": len(run.outcomes) - len(good),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(good) / run.duration_s,
        "request_goodput": num_good(good, wanted.goodput) / run.duration_s if wanted.goodput else None,
        "output_throughput": num_output / run.duration_s,
        "total_token_throughput": (num_input + num_output) / run.duration_s,
        "max_output_tokens_per_s": float(max(tokens_per_second(good), default=0.0)),
        "max_concurrent_requests": peak_concurrency(good),
        # Of speech models; vLLM writes it always.
        "rtfx": 0.0,
    }


def num_good(outcomes: Sequence[Outcome], limits_ms: dict[str, float]) -> int:
    """Requests within every limit; one of a single token meets any tpot."""

    def is_good(each: Outcome) -> bool:
        values = {"ttft": each.ttft_s, "tpot": tpot_s(each) or 0.0, "e2el": each.latency_s}
        return all(values[name] <= limit / 1e3 for name, limit in limits_ms.items())

    return sum(map(is_good, outcomes))


def statistics_ms(values_s: Sequence[float], name: str, percentiles: Sequence[float]) -> dict[str, float]:
    """vLLM's keys of one metric: mean, median, deviation and percentiles; zeros when there is no value."""
    values = np.asarray(values_s if len(values_s) else [0.0]) * 1e3
    found = {
        f"mean_{name}_ms": float(values.mean()),
        f"median_{name}_ms": float(np.median(values)),
        f"std_{name}_ms": float(values.std()),
    }
    return found | {f"p{percent(p)}_{name}_ms": float(np.percentile(values, p)) for p in percentiles}


def percent(value: float) -> str:
    """A percentile as vLLM writes it: 99, 99.9."""
    return str(int(value)) if value == int(value) else str(value)


def chunk_times_s(outcome: Outcome) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """When each chunk came, on the clock of the outcomes."""
    return outcome.start_s + outcome.ttft_s + np.concatenate([[0.0], np.cumsum(outcome.itl_s)])


def tokens_per_second(outcomes: Sequence[Outcome]) -> list[int]:
    """Chunks in each second from the first request on."""
    if not outcomes:
        return []
    begin_s = min(each.start_s for each in outcomes)
    seconds = np.concatenate([chunk_times_s(each) for each in outcomes]) - begin_s
    found: list[int] = np.bincount(seconds.astype(int)).tolist()
    return found


def peak_concurrency(outcomes: Sequence[Outcome]) -> int:
    """Most requests that ran at one moment; one that ends as another begins does not count twice."""
    moments = [(each.start_s, 1) for each in outcomes]
    moments += [(each.start_s + each.latency_s, -1) for each in outcomes]
    running = most = 0
    for _, change in sorted(moments):
        running += change
        most = max(most, running)
    return most


def honesty(run: LoadRun, is_exact_len: bool) -> dict[str, Any]:
    """What a reader must know to trust the rest; no keys of vLLM's.

    Args: is_exact_len: whether the server was told to go on after the end of text.
    """
    good = [each for each in run.outcomes if each.succeeded]
    short = [each for each in good if output_len(each) < each.wanted_len]
    return {
        "failures": dict(Counter(each.error for each in run.outcomes if each.error).most_common()),
        "num_short_outputs": len(short) if is_exact_len else None,
        "num_without_usage": sum(1 for each in good if each.num_output_tokens is None),
        "max_send_lateness_s": max(run.lateness_s, default=0.0),
    }
