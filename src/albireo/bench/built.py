"""What a freshly built engine directory does: one short run, and what the cost model says to it.

Called by cli/build. Does not build, and leaves the directory as it is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from albireo.backends.cpu.machine import isa_levels
from albireo.bench.latency import measure_runs
from albireo.bench.predict import Prediction, Schedule, predict
from albireo.bench.report import seconds
from albireo.bench.timed import Run, Sampling, TimedEngine
from albireo.bench.workload import RandomWorkload, random_requests
from albireo.config import BLOCK_SIZES, EngineConfig
from albireo.errors import EngineError

#: One request of these lengths: a second for a model of 0.5 B parameters on two cores.
INPUT_LEN, OUTPUT_LEN = 128, 16
#: A run that was shorter than this is done again, and the best one counts: the first wakes caches and threads.
_ENOUGH_S = 0.3
_MAX_RUNS = 5


@dataclass(frozen=True, slots=True)
class BuiltSpeed:
    """The best of some runs of one request, and the prediction for its steps at the limits measured beside them."""

    run: Run
    predicted: Prediction
    took_s: float

    @property
    def decode_tokens_per_s(self) -> float:
        """From the first token to the last."""
        return (self.run.num_output_tokens - 1) / (self.run.elapsed_s - self.run.first_token_s[0])


def speed_rows(directory: Path, levels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of the lines about speed; where it could not be measured, one that says why.

    Args: levels: ISA levels the directory was built for, best first.
    """
    here = isa_levels()
    if not set(levels) <= set(here):
        yield "speed", f"not measured: kernels of {levels[0]} do not run here, where the best are of {here[0]}"
        return
    try:
        speed = measure_built(directory, levels)
    except EngineError as error:
        yield "speed", f"not measured: {error}"
        return
    if levels[0] != here[0]:
        yield "predicted", f"not for {levels[0]}: the cost model knows this machine at its best, {here[0]}"
    elif speed.predicted.decode_step_s is not None:
        first, rate = speed.predicted.first_token_s, speed.predicted.decode_step_s.rate(1)
        yield (
            "predicted",
            f"first token {seconds(first.expected)} ({seconds(first.low)} to {seconds(first.high)}), "
            f"decode {rate.expected:,.1f} ({rate.low:,.1f} to {rate.high:,.1f}) tok/s",
        )
    run = speed.run
    yield (
        "measured",
        f"first token {seconds(run.first_token_s[0])}, decode {speed.decode_tokens_per_s:,.1f} tok/s   "
        f"(one request, {run.num_prompt_tokens} + {run.num_output_tokens} tokens; took {seconds(speed.took_s)})",
    )


def measure_built(directory: Path, levels: Sequence[str]) -> BuiltSpeed:
    """Load a directory with kernels of these levels and run one request.

    Raises: EngineError, such as OutOfMemory.
    Cost: loading, and a run of a second for 0.5 B parameters.
    """
    started = time.perf_counter()
    config = EngineConfig(
        device="cpu",
        model=str(directory),
        max_num_seqs=1,
        max_num_batched_tokens=INPUT_LEN,
        num_gpu_blocks_override=2 + (INPUT_LEN + OUTPUT_LEN) // min(BLOCK_SIZES),
        skip_tokenizer_init=True,
    )
    engine = TimedEngine(config, levels=levels)
    room = engine.loaded.settings.max_model_len
    output_len = max(2, min(OUTPUT_LEN, room // 2))
    input_len = min(INPUT_LEN, room - output_len)
    engine.check_fits(max(1, input_len) + output_len)
    workload = RandomWorkload(num_prompts=1, input_len=input_len, output_len=output_len)
    requests = random_requests(workload, *engine.vocabulary())
    runs, yardsticks = measure_runs(engine, requests, Sampling(temperature=0.0, detokenize=False), _rounds())
    best = min(runs, key=lambda measured: measured.run.elapsed_s).run
    planned = Schedule([step.shape for step in best.steps], [len(best.steps) - output_len])
    prediction = predict(yardsticks.costs, planned, [measured.limits for measured in runs])
    return BuiltSpeed(best, prediction, time.perf_counter() - started)


def _rounds() -> Iterator[int]:
    """One long round, or a few short ones."""
    started = time.perf_counter()
    for idx in range(_MAX_RUNS):
        yield idx
        if time.perf_counter() - started > _ENOUGH_S:
            return
