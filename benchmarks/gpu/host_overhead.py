"""How long does the host take for a step of a GPU? Planning, packing, staging, reporting; without launches and kernels.

    python benchmarks/gpu/host_overhead.py [--running 64] [--steps 300]

Needs no GPU: the model is one on CPU tensors whose launches do nothing, and whose tokens are all the same. Requests of
800 to 1,000 tokens decode beside each other. Prints CPU time of a step by what the requests ask for, median and 90th
percentile: while it is shorter than a step of the GPU, the GPU need not wait. But with drafts it does: then this is how
long, by step and not by token; of up to 64 drafts in all, which come true.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]

import numpy as np  # noqa: E402 - the path comes first
import torch  # noqa: E402
from model import BLOCK_SIZE, random_model  # noqa: E402
from setup import Setup  # noqa: E402

import albireo.engine.drafting  # noqa: E402
from albireo.backends.cuda.capture import DirectLaunches  # noqa: E402
from albireo.engine.engine import Engine  # noqa: E402
from albireo.engine.settings import EngineSettings  # noqa: E402
from albireo.execution.ahead import LOOKAHEAD, AheadRunner  # noqa: E402
from albireo.params import SamplingParams  # noqa: E402
from albireo.speculative.pacing import Pacing  # noqa: E402
from albireo.speculative_config import MAX_DRAFTS, SpeculativeConfig  # noqa: E402

KINDS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "top-k, top-p": {"temperature": 0.8, "top_p": 0.9, "top_k": 50},
    "penalties": {"temperature": 0.8, "presence_penalty": 0.5},
    "5 log-probabilities": {"temperature": 0.8, "logprobs": 5},
}
_LONGEST = 2048


class Always(Pacing):
    """Takes all drafts, and waits for them: nothing here takes the time that they would be worth."""

    def expected(self, num_rows: int) -> float:
        return 1.0

    def begin(self, num_rows: int) -> float:
        return 0.0

    def take(self, probability: float) -> bool:
        return True

    def pays(self, num_gaps: int) -> bool:
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--running", type=int, default=64, help="requests")
    parser.add_argument("--steps", type=int, default=300, help="that are timed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    albireo.engine.drafting.Pacing = Always  # type: ignore[attr-defined,misc]
    for name, params in KINDS.items():
        for config in (None, SpeculativeConfig(method="ngram")):
            times = sorted(1e3 * seconds for seconds in measured(args.running, args.steps, params, config))
            told = f"{name}, drafts" if config else name
            print(f"{told:28} {statistics.median(times):.3f} ms, {times[int(0.9 * len(times))]:.3f}")


def measured(num_running: int, num_steps: int, params: dict[str, Any], config: SpeculativeConfig | None) -> list[float]:
    """CPU seconds of steps in which all requests decode."""
    num_blocks = 1 + num_running * _LONGEST // BLOCK_SIZE
    maxima = {"T": 2048, "R": num_running + MAX_DRAFTS, "G": num_running + MAX_DRAFTS}
    setup = Setup(torch.device("cpu"), True, float("inf"))
    model = random_model(setup, "bf16", maxima, 512, 2, DirectLaunches())
    model.placed.whole = lambda *args, **options: lambda: None  # type: ignore[method-assign]
    model.placed.endings.judge = lambda *args: None  # type: ignore[method-assign]
    model.placed.endings.tokens.fill_(7)
    vocab = model.program.constants[next(iter(model.program.constants))].rows
    settings = EngineSettings(
        num_blocks=num_blocks,
        max_model_len=_LONGEST,
        vocab_size=vocab,
        max_num_seqs=num_running,
        lookahead=LOOKAHEAD,
        speculative=config,
    )
    engine = Engine(settings, AheadRunner(model, vocab, BLOCK_SIZE, _LONGEST).execute, lambda: 0.0)
    rng = np.random.default_rng(0)
    for i in range(num_running):
        prompt = rng.integers(3, vocab, int(rng.integers(800, 1000))).tolist()
        engine.add_request(str(i), prompt, SamplingParams(max_tokens=_LONGEST - 1000, ignore_eos=True, **params))
    # until the last prompt is computed and has had a few tokens
    for _ in range(num_running + 20):
        engine.step()
    times = []
    for _ in range(num_steps):
        if engine.stats().num_requests_running < num_running:
            break  # drafts bring them to their ends sooner
        start = time.thread_time()
        engine.step()
        times.append(time.thread_time() - start)
    return times


if __name__ == "__main__":
    main()
