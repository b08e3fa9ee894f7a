"""How long one batch takes: vLLM's `bench latency`, with its result keys, and each speed beside its limit.

Called by cli/bench. Knows no options: what to run is in Latency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.bench.cost_model import CostModel
from albireo.bench.limits import between, open_probe
from albireo.bench.report import MeasuredRun, Spread, Yardsticks, common_figures, common_lines, row, seconds
from albireo.bench.roofline import Roofline
from albireo.bench.timed import Sampling, TimedEngine
from albireo.bench.workload import BenchRequest, RandomWorkload, random_requests
from albireo.config import EngineConfig
from albireo.errors import ConfigError

#: vLLM's.
PERCENTILES = (10, 25, 50, 75, 90, 99)
#: Wraps a range of runs, to show how far they are.
Progress = Callable[[range, str], Iterable[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """batch_size requests of input_len tokens each produce output_len tokens, n times; over and over."""

    input_len: int = 32
    output_len: int = 128
    batch_size: int = 8
    num_iters_warmup: int = 3
    num_iters: int = 10
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size={self.batch_size} is not allowed; it must be at least 1")

    @property
    def workload(self) -> RandomWorkload:
        """The requests, as a workload of equal lengths."""
        return RandomWorkload(
            num_prompts=self.batch_size, input_len=self.input_len, output_len=self.output_len, seed=self.seed
        )


def measure_latency(
    config: EngineConfig, latency: Latency, progress: Progress, *, show_progress: bool = False
) -> dict[str, Any]:
    """Load, warm up, measure.

    Returns: vLLM's avg_latency, latencies and percentiles; beside them what common_figures() gives.
    Raises: ConfigError for a workload that does not fit the context.
    """
    if latency.num_iters < 1 or latency.num_iters_warmup < 0:
        raise ConfigError(f"num_iters={latency.num_iters} must be at least 1, num_iters_warmup at least 0")
    workload = latency.workload
    engine = TimedEngine(config, show_progress=show_progress)
    engine.check_fits(workload.max_len)
    requests = random_requests(workload, *engine.vocabulary())
    for _ in progress(range(latency.num_iters_warmup), "Warm-up"):
        engine.run(requests, latency.sampling)
    runs, yardsticks = measure_runs(engine, requests, latency.sampling, progress(range(latency.num_iters), "Runs"))
    latencies = [measured.run.elapsed_s for measured in runs]
    return {
        "avg_latency": sum(latencies) / len(latencies),
        "latencies": latencies,
        "percentiles": {str(p): float(np.percentile(latencies, p)) for p in PERCENTILES},
        "num_requests": latency.batch_size,
        **common_figures(runs, yardsticks, str(engine.loaded.directory), engine.loaded.config.hf_overrides),
    }


def measure_runs(
    engine: TimedEngine, requests: list[BenchRequest], sampling: Sampling, rounds: Iterable[int]
) -> tuple[list[MeasuredRun], Yardsticks]:
    """Run the same requests once a round, the device's limits measured before and after each."""
    loaded = engine.loaded
    roofline = Roofline(loaded.program, *loaded.other_ranks)
    threads, dtype, num_ranks = loaded.config.num_threads, loaded.model_config.dtype, 1 + len(loaded.other_ranks)
    probe = open_probe(loaded.device, threads, dtype, roofline.decode_bytes, num_ranks)
    runs = []
    before = probe.measure()
    for _ in rounds:
        run = engine.run(requests, sampling)
        after = probe.measure()
        runs.append(MeasuredRun(run, between(before, after)))
        before = after
    is_known = loaded.device == "cpu"
    costs = CostModel(loaded.program, loaded.model_config.vocab_size, *loaded.other_ranks) if is_known else None
    return runs, Yardsticks(roofline, costs, probe)


def latency_lines(figures: dict[str, Any]) -> list[str]:
    """The figures for reading."""
    latencies = figures["latencies"]
    out = figures["num_output_tokens"]
    speed = Spread.of([out / each for each in latencies])
    points = figures["percentiles"]
    return [
        row("model", figures["model"]),
        row(
            "workload",
            f"{figures['num_requests']} requests at once, {figures['num_prompt_tokens']} prompt and {out} "
            f"output tokens, {len(latencies)} runs",
        ),
        row("latency", f"{Spread.of(latencies).text(seconds)}   average {seconds(figures['avg_latency'])}"),
        row("percentiles", ", ".join(f"p{p} {seconds(points[str(p)])}" for p in PERCENTILES)),
        row("output", f"{speed.text(lambda x: f'{x:,.0f}')} tok/s   {_whole(figures)} of the limit"),
        *common_lines(figures),
    ]


def _whole(figures: dict[str, Any]) -> str:
    return f"{figures['fraction_of_limit']['whole']['median']:.2f}"
