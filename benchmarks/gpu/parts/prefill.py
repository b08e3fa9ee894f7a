"""Prompts of a model in the shape of Llama-3.1-8B: tokens and products a second."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import torch
from report import Row, target
from setup import Setup, attempt

#: Of a large product by torch, for the longest prompt: its linears alone.
TARGET = 0.70


def run(setup: Setup) -> Iterator[Row]:
    from model import ENCODINGS

    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    for weights in setup.pick(list(ENCODINGS), ["fp8"]):
        yield from attempt(weights, lambda weights=weights: _prefill(setup, weights))


def _prefill(setup: Setup, weights: str) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model, vocabulary

    lengths = setup.pick((512, 2048, 8192), (5, 18))
    longest = lengths[-1]
    model = random_model(setup, weights, {"T": longest, "R": 1, "G": 1}, longest, blocks_for(longest, 1))
    constants = model.program.constants
    vocab = vocabulary(model)
    # of all rows: a head, and the last layer's linears, compute few
    families = ("linear", "linear_norm", "qkv_rope_kv")
    linears = [call for call in model.program.calls if call.family in families and call.rows == "T"]
    per_token = sum(2 * constants[call.args["weight"]].rows * constants[call.args["weight"]].cols for call in linears)
    attention = [call for call in model.program.calls if call.family == "attention"]
    # scores, and what they weigh, of half of all pairs
    per_pair = sum(2 * call.attrs["num_heads"] * call.attrs["head_dim"] for call in attention)
    for length in lengths:
        step = make_step(length, 0, 1, vocab)
        model.run(step)
        times = []
        for _ in range(setup.pick(5, 1)):
            start = time.perf_counter()
            model.run(step)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times)
        rate, both = (
            products / seconds / 1e12 for products in (per_token * length, per_token * length + per_pair * length**2)
        )
        note = f"{seconds * 1e3:.2f} ms, {rate:.0f} TFLOP/s in linears alone, {both:.0f} with attention"
        yield Row(f"{weights} prompt of {length}", length / seconds, "tok/s", note)
    if not setup.is_dry and weights == "bf16":
        rate = _product_rate(setup)
        share = per_token * longest / seconds / 1e12 / rate
        yield target(f"{weights} prompt of {longest}, of a product", share, TARGET, note=f"torch.mm {rate:.0f} TFLOP/s")
    del model
    setup.release()


def _product_rate(setup: Setup) -> float:
    """TFLOP/s of torch, two matrices of 8,192 rows."""
    a, b = (setup.random(8192, 8192, dtype=torch.bfloat16, seed=seed) for seed in (1, 2))
    out = torch.empty_like(a)
    return 2 * 8192**3 / setup.seconds(lambda: torch.mm(a, b.T, out=out)) / 1e12
