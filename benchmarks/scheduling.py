"""How long does the engine think per step? Plan, commit and report, without the executing in between.

    python benchmarks/scheduling.py [--steps 300] [--running 32 1000]

Sequences decode beside each other at staggered lengths, so that new blocks and block hashes come evenly. A fake
executor answers at once and its time is taken off. Prints the median and the spread (10th and 90th percentile) of a
step, and of steps that admit a request, once without and once with a shared prefix of 1,024 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from albireo.engine.engine import Engine
from albireo.engine.settings import EngineSettings
from albireo.params import SamplingParams
from albireo.step import SampledToken, StepPlan, StepResult

BLOCK_SIZE = 16
MAX_TOKENS = 100_000


class Instant:
    """Answers every task with token 7, and keeps the time that took."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, plan: StepPlan) -> StepResult:
        start = time.perf_counter()
        result = StepResult([SampledToken(task.seq_id, 7) for work in plan.work for task in work.samples])
        self.seconds = time.perf_counter() - start
        return result


def make_engine(num_running: int, num_tokens: int) -> tuple[Engine, Instant]:
    """An engine with seats and blocks for num_running sequences of num_tokens."""
    executor = Instant()
    settings = EngineSettings(
        num_blocks=(num_running + 1) * (num_tokens // BLOCK_SIZE + 2),
        max_model_len=num_tokens,
        vocab_size=50_000,
        block_size=BLOCK_SIZE,
        max_num_seqs=num_running + 1,
        max_num_batched_tokens=max(2048, 2 * num_running),
    )
    return Engine(settings, executor, time.perf_counter), executor


def timed_step(engine: Engine, executor: Instant) -> float:
    """Seconds of one step that are the engine's own."""
    start = time.perf_counter()
    engine.step()
    return time.perf_counter() - start - executor.seconds


def decode(num_running: int, num_steps: int) -> list[float]:
    """Steps in which num_running sequences get one token each."""
    engine, executor = make_engine(num_running, 2048)
    params = SamplingParams(max_tokens=None, ignore_eos=True, temperature=0.0)
    for idx in range(num_running):
        prompt = [(idx * 31 + place) % 50_000 for place in range(16 + idx % BLOCK_SIZE)]
        engine.add_request(str(idx), prompt, params)
    while engine.stats().num_requests_running < num_running:
        engine.step()
    for _ in range(2 * BLOCK_SIZE):
        engine.step()
    return [timed_step(engine, executor) for _ in range(num_steps)]


def admit(num_running: int, num_steps: int, prompt_of: Callable[[int], list[int]]) -> list[float]:
    """Steps as in decode() in which one more request of about a thousand tokens begins and another ends."""
    engine, executor = make_engine(num_running, 2048)
    steady = SamplingParams(max_tokens=None, ignore_eos=True, temperature=0.0)
    for idx in range(num_running):
        engine.add_request(str(idx), [idx % 50_000] * (16 + idx % BLOCK_SIZE), steady)
    while engine.stats().num_requests_running < num_running:
        engine.step()
    times = []
    for idx in range(num_steps):
        engine.add_request(f"new {idx}", prompt_of(idx), SamplingParams(max_tokens=1, ignore_eos=True))
        times.append(timed_step(engine, executor))
    return times


def report(name: str, times: list[float]) -> None:
    """One line: median, and the middle 80 %, in milliseconds."""
    deciles = statistics.quantiles(times, n=10)
    print(f"{name:<46} {statistics.median(times) * 1e3:8.3f} ms   [{deciles[0] * 1e3:.3f}, {deciles[-1] * 1e3:.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--running", type=int, nargs="+", default=[32, 1000])
    options = parser.parse_args()
    for num_running in options.running:
        report(f"{num_running} decoding", decode(num_running, options.steps))
        fresh = admit(num_running, options.steps, lambda idx: [(idx * 7 + place * 3) % 50_000 for place in range(1056)])
        report(f"{num_running} decoding + a new prompt of 1056", fresh)
        shared = admit(num_running, options.steps, lambda idx: [*range(1024), *[idx % 50_000] * 32])
        report(f"{num_running} decoding + a new prompt, 1024 shared", shared)


if __name__ == "__main__":
    main()
