"""Question: what does sampling one token cost beside a step of the model?

Prints the median microseconds per row at V = 151,936 (Qwen2.5) for typical settings, on a peaked row (most of the
mass on a few hundred tokens, as a language model gives) and on a flat one (the worst case for top-p).
Run: python benchmarks/sampling.py [--repeats 50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from albireo.params import SamplingParams
from albireo.sampling.sampler import Sampler
from albireo.step import SampleTask

VOCAB_SIZE = 151_936
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0},
    "greedy, logprobs=5": {"temperature": 0, "logprobs": 5},
    "greedy, repetition": {"temperature": 0, "repetition_penalty": 1.1},
    "temperature": {"temperature": 0.7},
    "top_k=50": {"temperature": 0.7, "top_k": 50},
    "top_p=0.95": {"temperature": 0.7, "top_p": 0.95},
    "min_p=0.05": {"temperature": 0.7, "min_p": 0.05},
    "top_k=20 top_p=0.8": {"temperature": 0.7, "top_k": 20, "top_p": 0.8},
    "all, logprobs=5": {
        "temperature": 0.7,
        "top_k": 50,
        "top_p": 0.9,
        "min_p": 0.01,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "logprobs": 5,
    },
}


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    flat = rng.standard_normal(VOCAB_SIZE).astype(np.float32)
    # Zipf-like: logit = -1.5 log(rank), in random order, with a little noise.
    peaked = -1.5 * np.log(1.0 + rng.permutation(VOCAB_SIZE)) + 0.3 * rng.standard_normal(VOCAB_SIZE)
    return {"peaked": peaked.astype(np.float32), "flat": flat}


def median_us(sampler: Sampler, row: np.ndarray, params: SamplingParams, repeats: int) -> float:
    prompt = np.random.default_rng(1).integers(0, VOCAB_SIZE, 512).tolist()
    times = []
    for position in range(repeats):
        task = SampleTask(0, params, 1, prompt, prompt[: 128 + position])
        start = time.perf_counter()
        sampler.sample(row[None], [task], [0])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50)
    repeats = parser.parse_args().repeats
    sampler = Sampler(VOCAB_SIZE)
    print(f"median microseconds per row, V = {VOCAB_SIZE}, prompt 512, output from 128, {repeats} repeats")
    print(f"{'':24}" + "".join(f"{name:>10}" for name in rows()))
    for name, asked in SETTINGS.items():
        params = SamplingParams(**asked)
        medians = [median_us(sampler, row, params, repeats) for row in rows().values()]
        print(f"{name:24}" + "".join(f"{median:10.0f}" for median in medians))
    logits = np.stack([*rows().values()] * 4)
    start = time.perf_counter()
    sampler.prompt_logprobs(logits, list(range(8)), 5)
    print(f"{'prompt_logprobs=5':24}{(time.perf_counter() - start) / 8 * 1e6:10.0f} (mean of 8 rows)")


if __name__ == "__main__":
    main()
