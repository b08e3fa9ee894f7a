"""One short run of a model: one request, what it took, and what the cost model says to it.

Called by built.py, and by the commands that put speed beside what they made.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from albireo.bench.latency import measure_runs
from albireo.bench.predict import Prediction, Schedule, predict
from albireo.bench.timed import Run, Sampling, TimedEngine
from albireo.bench.workload import RandomWorkload, random_requests
from albireo.config import BLOCK_SIZES, EngineConfig

#: A run that was shorter than this is done again, and the best one counts: the first wakes caches and threads.
_ENOUGH_S = 0.3
_MAX_RUNS = 5


@dataclass(frozen=True, slots=True)
class ShortRun:
    """The best of some runs of one request, and the prediction for its steps at the limits measured beside them.

    Fields:
        weight_bytes: of the packed weights, of all ranks. took_s: loading and all runs.
    """

    run: Run
    predicted: Prediction
    weight_bytes: int
    num_threads: int
    took_s: float

    @property
    def decode_tokens_per_s(self) -> float:
        """From the first token to the last."""
        return (self.run.num_output_tokens - 1) / (self.run.elapsed_s - self.run.first_token_s[0])

    @property
    def prefill_tokens_per_s(self) -> float:
        """Of the prompt, until the first token."""
        return self.run.num_prompt_tokens / self.run.first_token_s[0]


def measure_short(model: Path, input_len: int, output_len: int, levels: Sequence[str] | None = None) -> ShortRun:
    """Load a model and run one request.

    Args:
        input_len, output_len: of the request; where the context is too short for both, the prompt gives way, and
            half of the context is output at most.
        levels: ISA levels to choose kernels from; None: all of this machine's.
    Raises: EngineError, such as OutOfMemory.
    Cost: loading, and a run; a few runs where they are short. The model is out of memory again then.
    """
    try:
        return _measured(model, input_len, output_len, levels)
    finally:
        gc.collect()  # the engine and what times it hold each other


def _measured(model: Path, input_len: int, output_len: int, levels: Sequence[str] | None) -> ShortRun:
    started = time.perf_counter()
    config = EngineConfig(
        device="cpu",
        model=str(model),
        max_num_seqs=1,
        max_num_batched_tokens=input_len,
        num_gpu_blocks_override=2 + (input_len + output_len) // min(BLOCK_SIZES),
        skip_tokenizer_init=True,
    )
    engine = TimedEngine(config, levels=levels)
    loaded = engine.loaded
    room = loaded.settings.max_model_len
    output_len = max(2, min(output_len, room // 2))
    input_len = max(1, min(input_len, room - output_len))
    engine.check_fits(input_len + output_len)
    workload = RandomWorkload(num_prompts=1, input_len=input_len, output_len=output_len)
    requests = random_requests(workload, *engine.vocabulary())
    runs, yardsticks = measure_runs(engine, requests, Sampling(temperature=0.0, detokenize=False), _rounds())
    costs, num_threads = yardsticks.costs, yardsticks.probe.num_threads
    assert costs is not None and num_threads is not None, "a processor's are known"
    best = min(runs, key=lambda measured: measured.run.elapsed_s).run
    planned = Schedule([step.shape for step in best.steps], [len(best.steps) - output_len])
    prediction = predict(costs, planned, [measured.limits for measured in runs])
    weight_bytes = sum(program.weight_bytes for program in (loaded.program, *loaded.other_ranks))
    return ShortRun(best, prediction, weight_bytes, num_threads, time.perf_counter() - started)


def _rounds() -> Iterator[int]:
    """One long round, or a few short ones."""
    started = time.perf_counter()
    for idx in range(_MAX_RUNS):
        yield idx
        if time.perf_counter() - started > _ENOUGH_S:
            return
