"""How many tokens a second many requests give: vLLM's `bench throughput`, with its result keys, and the limit.

Called by cli/bench. Knows no options: what to run is in the workload.
"""

from __future__ import annotations

from typing import Any

from albireo.bench.latency import Progress, measure_runs
from albireo.bench.report import Spread, common_figures, common_lines, row, seconds
from albireo.bench.timed import Sampling, TimedEngine
from albireo.bench.workload import BenchRequest, RandomWorkload, random_requests
from albireo.config import EngineConfig
from albireo.errors import ConfigError

#: Enough for every kernel and thread to have run once.
_WARMUP = RandomWorkload(num_prompts=2, input_len=8, output_len=4)


def measure_throughput(
    config: EngineConfig,
    workload: RandomWorkload,
    sampling: Sampling,
    num_iters: int,
    progress: Progress,
    *,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Load, warm up, and run the whole workload num_iters times.

    Returns: vLLM's elapsed_time, num_requests, total_num_tokens, requests_per_second and tokens_per_second, of the
        median run; beside them all elapsed_times and what common_figures() gives.
    Raises: ConfigError for a workload that does not fit the context.
    """
    if num_iters < 1:
        raise ConfigError(f"num_iters={num_iters} is not allowed; it must be at least 1")
    engine = TimedEngine(config, show_progress=show_progress)
    engine.check_fits(workload.max_len)
    vocabulary = engine.vocabulary()
    engine.run(random_requests(_WARMUP, *vocabulary), sampling)
    requests = random_requests(workload, *vocabulary)
    runs, yardsticks = measure_runs(engine, requests, sampling, progress(range(num_iters), "Runs"))
    times = [measured.run.elapsed_s for measured in runs]
    elapsed = Spread.of(times).median
    total = _total_tokens(requests, sampling.n)
    return {
        "elapsed_time": elapsed,
        "num_requests": len(requests),
        "total_num_tokens": total,
        "requests_per_second": len(requests) / elapsed,
        "tokens_per_second": total / elapsed,
        "elapsed_times": times,
        **common_figures(runs, yardsticks, str(engine.loaded.directory), engine.loaded.config.hf_overrides),
    }


def throughput_lines(figures: dict[str, Any]) -> list[str]:
    """The figures for reading."""
    times = figures["elapsed_times"]
    total = Spread.of([figures["total_num_tokens"] / each for each in times])
    output = Spread.of([figures["num_output_tokens"] / each for each in times])
    whole = figures["fraction_of_limit"]["whole"]["median"]
    return [
        row("model", figures["model"]),
        row(
            "workload",
            f"{figures['num_requests']} requests, {figures['num_prompt_tokens']:,} prompt and "
            f"{figures['num_output_tokens']:,} output tokens, {len(times)} runs",
        ),
        row("elapsed", f"{Spread.of(times).text(seconds)}   {figures['requests_per_second']:.2f} requests/s"),
        row("throughput", f"{total.text(lambda x: f'{x:,.0f}')} tok/s in all   {whole:.2f} of the limit"),
        row("output", f"{output.text(lambda x: f'{x:,.0f}')} tok/s"),
        *common_lines(figures),
    ]


def _total_tokens(requests: list[BenchRequest], n: int) -> int:
    """Prompt and output tokens, as vLLM counts them: a prompt once."""
    return sum(len(request.prompt_token_ids) + n * request.output_len for request in requests)
