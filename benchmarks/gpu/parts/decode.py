"""Decoding steps of a model in the shape of Llama-3.1-8B: tokens a second, and how near to the memory's bandwidth.

`device`: recorded steps one behind the other; `step`: begun, waited for and read, as the engine does without a step
ahead.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial

from report import Row, target
from setup import Setup, attempt

CONTEXT = 512
#: At batch 1, of what the memory is sold with; of bf16 with six launches a layer, which this is.
TARGETS = {"bf16": 0.82, "fp8": 0.70, "fp8-a16": 0.70, "int4": 0.60, "q4_k": 0.60, "q6_k": 0.60}
LEAST = {"bf16": "the first version's was 0.75"}


def run(setup: Setup) -> Iterator[Row]:
    from model import ENCODINGS

    import albireo.backends.cuda.model  # noqa: F401 - where it is missing the part is skipped

    for weights in setup.pick(list(ENCODINGS), ["fp8"]):
        yield from attempt(weights, lambda weights=weights: decode_of(setup, weights))


def decode_of(setup: Setup, weights: str) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model, read_bytes, vocabulary

    context = setup.pick(CONTEXT, 20)
    batches = setup.pick((1, 8, 64, 256), (1, 2))
    most = batches[-1]
    maxima = {"T": most, "R": most, "G": most}
    model = random_model(setup, weights, maxima, setup.pick(1024, 64), blocks_for(context, most))
    vocab = vocabulary(model)
    for batch in batches:
        step = make_step(1, context - 1, batch, vocab)
        outputs = model.run(step)
        is_good = bool((outputs.top_ids[:, 0] >= 0).all())
        bucket = model._buckets.of({**step.sizes, "B": batch, "D": 0, "L": 0})
        assert bucket is not None
        device = setup.seconds(partial(model._run, bucket), is_recorded=False)
        walls = []
        for _ in range(setup.pick(20, 1)):
            start = time.perf_counter()
            model.run(step)
            walls.append(time.perf_counter() - start)
        share = read_bytes(model, batch, context) / device / setup.bandwidth
        note = f"{device * 1e3:.3f} ms, {share:.2f} of the bandwidth; step {statistics.median(walls) * 1e3:.3f} ms"
        yield Row(f"{weights} batch {batch}, context {context}", batch / device, "tok/s", note, is_good)
        if batch == 1 and weights in TARGETS:
            yield target(
                f"{weights} at batch 1, of the bandwidth", share, TARGETS[weights], note=LEAST.get(weights, "")
            )
    del model
    setup.release()
