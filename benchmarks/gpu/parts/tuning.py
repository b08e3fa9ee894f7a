"""The linears of Llama-3.1-8B at few tokens, each by itself: microseconds, and how near to the memory's bandwidth.

Where a kernel takes a tile as an argument, the tiles that could be better are tried: the tuning table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import torch
from report import Row
from setup import Setup, attempt

SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.linear  # noqa: F401 - where it is missing the part is skipped

    shapes = setup.pick(SHAPES, {"o": (128, 256)})
    types = setup.pick(("bfloat16", "fp8", "int4.g128"), ("bfloat16",))
    for tokens, dtype in product(setup.pick((1, 16, 64), (1,)), types):
        for name, (rows, cols) in shapes.items():
            args = (setup, dtype, name, rows, cols, tokens)
            if setup.seconds_left > 30:
                yield from attempt(f"tiles {dtype} {name} of {tokens}", lambda args=args: _tiles(*args))
    kinds = (("bfloat16", None), ("fp8", None), ("fp8", "fp8.token"), ("int4.g128", "bfloat16"), ("int8", None))
    for dtype, kind in setup.pick(kinds, kinds[2:4]):
        for (name, (rows, cols)), tokens in product(shapes.items(), setup.pick((1, 8, 64), (1,))):
            args = (setup, dtype, kind, name, rows, cols, tokens)
            if setup.seconds_left > 2:
                yield from attempt(f"{dtype} {name} of {tokens}", lambda args=args: _linear(*args))


def _linear(setup: Setup, dtype: str, kind: str | None, name: str, rows: int, cols: int, tokens: int) -> Iterator[Row]:
    """kind: of x, where that is not the encoding's own."""
    from inputs import activations
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.linear import linear, workspace_size

    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    x, _ = activations(setup, dtype, tokens, cols, kind)
    out = torch.empty((tokens, rows), device=setup.device)
    space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
    seconds = setup.seconds(lambda: linear(x, matrix, out, workspace=space))
    arrays = (matrix.codes, matrix.scale, matrix.zero, matrix.gamma, matrix.offset)
    size = sum(array.numel() * array.element_size() for array in arrays if array is not None)
    share = size / seconds / setup.bandwidth
    label = f"{dtype}{f' by {kind}' if kind else ''} {name} {rows} x {cols}, {tokens} tokens"
    yield Row(label, seconds * 1e6, "us", f"{share:.2f} of the bandwidth")


def _tiles(setup: Setup, dtype: str, name: str, rows: int, cols: int, tokens: int) -> Iterator[Row]:
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels import matmul_smallm as few
    from albireo.backends.cuda.kernels.parts.tiles import Tile
    from albireo.backends.cuda.linear import workspace_size

    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    x = setup.random(tokens, cols, dtype=torch.bfloat16)
    out = torch.empty((tokens, rows), device=setup.device)
    space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
    base = few.tile_for(tokens, dtype)
    ks = {"bfloat16": (128, 256), "fp8": (128, 256), "int4.g128": (256,)}[dtype]
    tiles = {base}
    for k, warps, in_flight in product(ks, (2, 4), (40 << 10, 72 << 10, 110 << 10)):
        stage = base.rows * matrix.codes.shape[1] * matrix.codes.element_size() * k // cols + base.tokens * 2 * k
        tiles.add(Tile(base.rows, base.tokens, k, min(9, max(2, in_flight // stage)), warps))
    found = {}
    for tile in (base, *(tiles - {base})):
        found[tile] = setup.seconds(partial(few.matmul_smallm, x, matrix, out, rows, workspace=space, tile=tile))
        if setup.is_dry:
            break
    best = min(found, key=lambda tile: found[tile])
    data = {"rows": rows, "cols": cols, "tokens": tokens, "dtype": dtype, "best": asdict(best)}
    data["all"] = {_text(tile): round(value * 1e6, 2) for tile, value in found.items()}
    note = f"{_text(best)}; the default, {_text(base)}: {found[base] * 1e6:.1f} us"
    yield Row(f"best tile of {dtype} {name}, {tokens} tokens", found[best] * 1e6, "us", note, data=data)


def _text(tile: Any) -> str:
    return f"k {tile.k}, {tile.stages} stages, {tile.warps} warps"
