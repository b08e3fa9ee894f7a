"""Linears that start before the launch in front of them has ended: what that is worth, and whether it changes a bit.

Layers of linears of Llama-3.1-8B at one token, recorded as a graph, with the switch of parts/overlap.py off and on.
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

    for dtype in setup.pick(("bfloat16", "fp8", "int4.g128"), ("bfloat16",)):
        for tokens in setup.pick((1, 8), (1,)):
            yield from attempt(f"{dtype} of {tokens}", lambda dtype=dtype, tokens=tokens: _layers(setup, dtype, tokens))


def _layers(setup: Setup, dtype: str, tokens: int) -> Iterator[Row]:
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.parts import overlap
    from albireo.backends.cuda.linear import linear, workspace_size

    layers, shapes = setup.pick((LAYERS, SHAPES), (1, ((64, 128), (128, 64))))
    matrices = []
    for seed in range(layers * len(shapes)):
        matrices.append(empty_matrix(dtype, *shapes[seed % len(shapes)], setup.device))
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
