"""Linears that start before the launch in front of them has ended: what that is worth, and whether it changes a bit.

First decoding steps of one sequence of the whole model, attention and all; then layers of linears of Llama-3.1-8B.
Recorded as a graph, with the switch of parts/overlap.py off and on.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from report import Row, verdict
from setup import Setup, attempt

LAYERS = 4
#: Of a layer: rows and inputs.
SHAPES = ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336))


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.linear  # noqa: F401 - where it is missing the part is skipped

    for weights in setup.pick(("bf16", "fp8-a16"), ("bf16",)):
        yield from attempt(f"{weights}, a step", lambda weights=weights: _step(setup, weights))
    for dtype in setup.pick(("bfloat16", "fp8", "int4.g128"), ("bfloat16",)):
        for tokens in setup.pick((1, 8), (1,)):
            yield from attempt(f"{dtype} of {tokens}", lambda dtype=dtype, tokens=tokens: _layers(setup, dtype, tokens))


def _step(setup: Setup, weights: str) -> Iterator[Row]:
    from model import blocks_for, make_step, random_model, read_bytes, vocabulary

    from albireo.backends.cuda.buckets import NO_ENDING
    from albireo.backends.cuda.kernels.parts import overlap

    context = setup.pick(512, 20)
    maxima = {"T": 1, "R": 1, "G": 1}
    model = random_model(setup, weights, maxima, setup.pick(1024, 64), blocks_for(context, 1))
    step = make_step(1, context - 1, 1, vocabulary(model))
    model.run(step)
    sizes = {**step.sizes, "B": 1, "D": 0, "L": 0}
    found, bits, was_on = {}, [], overlap.ENABLED
    try:
        for is_on in (False, True):
            overlap.ENABLED = is_on
            found[is_on] = setup.seconds(model.placed.whole(sizes, NO_ENDING, feeds=False))
            bits.append([model.placed.output(name, 1).clone() for name in ("top_ids", "top_values")])
    finally:
        overlap.ENABLED = was_on
    share = read_bytes(model, 1, context) / found[True] / setup.bandwidth
    note = f"{found[True] * 1e3:.3f} ms, {share:.2f} of the bandwidth; off: {1 / found[False]:.1f} tok/s"
    is_same = all(torch.equal(a, b) for a, b in zip(*bits, strict=True))
    yield Row(f"{weights}, batch 1, context {context}", 1 / found[True], "tok/s", note, is_good=is_same)
    seconds = {"on": found[True], "off": found[False]}
    yield verdict(f"{weights} at batch 1, early", "overlap.ENABLED", "on" if was_on else "off", seconds)
    del model
    setup.release()


def _layers(setup: Setup, dtype: str, tokens: int) -> Iterator[Row]:
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.parts import overlap
    from albireo.backends.cuda.linear import linear, workspace_size

    layers, shapes = setup.pick((LAYERS, SHAPES), (1, ((64, 128), (128, 64))))
    matrices = []
    for seed in range(layers * len(shapes)):
        matrices.append(empty_matrix(dtype, *shapes[seed % len(shapes)], setup.device))  # type: ignore[call-arg]
        fill_matrix(matrices[-1], setup, seed)
    size = max(workspace_size(dtype, rows, cols) for rows, cols in shapes)
    space = torch.zeros(size, dtype=torch.uint8, device=setup.device)
    # each reads the first columns of what the one before wrote, so that order matters
    x = setup.random(tokens, shapes[0][1], dtype=torch.bfloat16)
    outs = [torch.zeros((tokens, 28672), dtype=torch.bfloat16, device=setup.device) for _ in matrices]

    def launches() -> None:
        source = x
        for matrix, out in zip(matrices, outs, strict=True):
            linear(source[:, : matrix.cols], matrix, out[:, : matrix.rows], workspace=space)
            source = out

    found, bits, was_on = {}, [], overlap.ENABLED
    try:
        for is_on in (False, True):
            overlap.ENABLED = is_on
            found[is_on] = setup.seconds(launches)
            bits.append(torch.stack(outs).clone())
    finally:
        overlap.ENABLED = was_on
    read = sum(matrix.codes.numel() * matrix.codes.element_size() for matrix in matrices)
    note = f"off: {found[False] * 1e6:.0f} us, {read / found[False] / setup.bandwidth:.2f} of the bandwidth"
    note = f"{read / found[True] / setup.bandwidth:.2f} of the bandwidth; {note}"
    is_same = torch.equal(bits[0].view(torch.int16), bits[1].view(torch.int16))
    yield Row(f"{dtype}, {tokens} tokens, {layers} layers", found[True] * 1e6, "us", note, is_good=is_same)
    seconds = {"on": found[True], "off": found[False]}
    yield verdict(f"{dtype} of {tokens}, early", "overlap.ENABLED", "on" if was_on else "off", seconds)
