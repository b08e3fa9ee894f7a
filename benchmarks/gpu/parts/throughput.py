"""Offline throughput through the real engine: a Llama-3.1-8B shape with fp8 weights and an fp8 cache, random prompts.

Scheduler, blocks, steps ahead, all that `LLM` does but text; beside TensorRT-LLM's published table for an H200 and the
same model in fp8. Seats are first taken by requests of every age, for which nothing is computed (the cache holds random
numbers anyway), so that a few seconds are a window of a long run: prompts come in as others end. As many sequences as
the cache has room for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from report import Row, target
from setup import Setup, attempt

if TYPE_CHECKING:
    from timeline import Timeline
    from traffic import Shape

    from albireo.backends.cuda.model import CudaModel

#: Tokens of prompt and output -> output tokens a second that TensorRT-LLM is published with, on one H200, in fp8.
PUBLISHED = {
    (128, 128): 27_911,
    (2048, 2048): 12_194,
    (1000, 1000): 17_744,
    (2048, 128): 3_538,
    (128, 2048): 26_221,
}
#: Names of random_model(), those that there are; the first is what `--quantization fp8` is.
WEIGHTS = ("fp8", "fp8-a16")
#: Of those.
TARGET = 0.9
STEP_TOKENS, MOST_SEATS, LONGEST = 8192, 2048, 4096
#: Of each shape: until what is met is compiled and recorded, at most; then what counts.
WARM_SECONDS, SECONDS = 8.0, 8.0


def run(setup: Setup) -> Iterator[Row]:
    from model import ENCODINGS

    import albireo.engine.engine  # noqa: F401 - where it is missing the part is skipped

    names = [name for name in WEIGHTS if name in ENCODINGS]
    for i, weights in enumerate(setup.pick(names, names[:1])):
        until = setup.seconds_left / (len(names) - i)
        yield from attempt(weights, lambda weights=weights, until=until: _all(setup, weights, until))


def _all(setup: Setup, weights: str, seconds: float) -> Iterator[Row]:
    from model import random_model
    from timeline import Timeline
    from traffic import Shape

    last = setup.seconds_left - seconds
    step_tokens, seats = setup.pick((STEP_TOKENS, MOST_SEATS), (8, 3))
    model = random_model(
        setup,
        weights,
        {"T": step_tokens, "R": seats, "G": seats},
        setup.pick(LONGEST, 64),
        setup.pick(1 << 30, 12),
        kv_dtype="fp8",
        reserve_bytes=0 if setup.is_dry else torch.cuda.get_device_properties(setup.device).total_memory // 20,
    )
    timeline = Timeline(model)
    tokens = (model.num_blocks - 1) * model.program.kv.block_size
    yield Row(f"{weights}: tokens that the cache holds", tokens, "", f"{seats} sequences of a step at most")
    shapes = setup.pick([Shape(*each) for each in PUBLISHED], [Shape(6, 5)])
    if not setup.is_dry:
        _compile(model)
    for shape in shapes:
        if setup.seconds_left - last < WARM_SECONDS + 5:
            yield Row(f"{weights} {shape}", note="no time was left")
            continue
        args = (setup, model, timeline, weights, shape, min(seats, shape.seats(model.num_blocks, seats)), step_tokens)
        yield from attempt(f"{weights} {shape}", lambda args=args: _measure(*args))
    del model, timeline
    setup.release()


def _compile(model: CudaModel) -> None:
    """Kernels of prompts are made for what they are asked first: before anything is timed."""
    from model import make_step, vocabulary

    for length in (16, 100, 250, 600, 2048, 4000):
        model.run(make_step(length, 0, 1, vocabulary(model)))
    model.run(make_step(2048, 0, 4, vocabulary(model)))


def _measure(
    setup: Setup, model: CudaModel, timeline: Timeline, weights: str, shape: Shape, seats: int, step_tokens: int
) -> Iterator[Row]:
    from traffic import Traffic

    traffic = Traffic(model, timeline, shape, seats, step_tokens)
    traffic.fill()
    until, known = time.monotonic() + WARM_SECONDS, -1
    while known != len(model._recordings) and time.monotonic() < until:
        known = len(model._recordings)
        traffic.run(setup.pick(1.0, 0), setup.pick(5, 1))
    found = traffic.run(setup.pick(SECONDS, 0), setup.pick(20, 3))
    note = (
        f"{found.batch:.0f} of {seats} sequences and {found.seconds / found.steps * 1e3:.1f} ms a step, GPU busy "
        f"{found.busy:.3f}, {found.prompt_tokens / found.seconds:,.0f} prompt tok/s, {found.preemptions} preemptions, "
        f"{found.steps} steps"
    )
    data = {"weights": weights, "seats": seats, "batch": found.batch, "busy": found.busy, "steps": found.steps}
    yield Row(f"{weights} {shape}", found.rate, "tok/s", note, is_good=found.is_sound, data=data)
    published = PUBLISHED.get((shape.prompt, shape.output))
    if published is not None:
        ratio = found.rate / published
        note = f"{found.rate:,.0f} of TensorRT-LLM's {published:,} tok/s on an H200{_scaled(setup, ratio)}"
        yield target(f"{weights} {shape}", ratio, TARGET, note=note)


def _scaled(setup: Setup, ratio: float) -> str:
    """Of another card: what it would be, were both bound by the memory alone."""
    if setup.bandwidth != setup.bandwidth or setup.bandwidth == 4.8e12:
        return ""
    return f", {ratio * 4.8e12 / setup.bandwidth:.2f} by bandwidth"
