"""The linears of Llama-3.1-8B at few tokens, each by itself: microseconds, and how near to the memory's bandwidth.

Where a kernel takes a tile as an argument, the tiles that could be better are tried: the tuning table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from report import Row, verdict
from setup import Setup, attempt

SHAPES = {"qkv": (6144, 4096), "o": (4096, 4096), "gate_up": (28672, 4096), "down": (4096, 14336)}


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.linear  # noqa: F401 - where it is missing the part is skipped

    shapes = setup.pick(SHAPES, {"o": (128, 256)})
    types = setup.pick(("fp8", "bfloat16", "int4.g128"), ("bfloat16",))
    for tokens, dtype in product(setup.pick((1, 64, 16), (1,)), types):
        if setup.seconds_left > 30:
            yield from attempt(
                f"tiles {dtype} of {tokens}", lambda tokens=tokens, dtype=dtype: _tiles(setup, dtype, tokens, shapes)
            )
    kinds = (("bfloat16", None), ("fp8", None), ("fp8", "fp8.g128.token"), ("int4.g128", "bfloat16"), ("int8", None))
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


def _tiles(setup: Setup, dtype: str, tokens: int, shapes: dict[str, tuple[int, int]]) -> Iterator[Row]:
    """Of each matrix, and of the four together: a tile is chosen by type and tokens."""
    from albireo.backends.cuda.kernels.matmul_smallm import tile_for

    base = tile_for(tokens, dtype)
    found: dict[str, dict[str, float]] = {}
    for name, (rows, cols) in shapes.items():
        if setup.seconds_left < 15:
            return
        times = found[name] = _times(setup, dtype, rows, cols, tokens, base)
        row = verdict(f"{dtype} {name}, {tokens} tokens", "matmul_smallm.tile_for", _text(base), times)
        yield replace(row, name=f"best tile of {dtype} {name}, {tokens} tokens")
    met = set.intersection(*(set(times) for times in found.values()))
    together = {tile: sum(times[tile] for times in found.values()) for tile in met}
    yield verdict(f"{dtype} of {tokens}, a layer", "matmul_smallm.tile_for", _text(base), together)


def _times(setup: Setup, dtype: str, rows: int, cols: int, tokens: int, base: Any) -> dict[str, float]:
    """Seconds of each tile that works."""
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels import matmul_smallm as few
    from albireo.backends.cuda.kernels.parts.epilogue import Finish
    from albireo.backends.cuda.linear import workspace_size

    matrix = empty_matrix(dtype, rows, cols, setup.device)
    fill_matrix(matrix, setup, 1)
    x = setup.random(tokens, cols, dtype=torch.bfloat16)
    out = torch.empty((tokens, rows), device=setup.device)
    space = torch.zeros(workspace_size(dtype, rows, cols), dtype=torch.uint8, device=setup.device)
    code_bytes = matrix.codes.shape[1] * matrix.codes.element_size() / cols
    launches = {
        _text(tile): partial(few.matmul_smallm, x, matrix, Finish(out, rows), workspace=space, tile=tile)
        for tile in _candidates(base, dtype, code_bytes)
    }
    setup.warm(launches.values())
    times = {}
    for text, launch in list(launches.items())[: setup.pick(99, 2)]:
        with contextlib.suppress(Exception):  # more shared memory than there is, for one
            times[text] = setup.seconds(launch)
    return times


def _candidates(base: Any, dtype: str, code_bytes: float) -> list[Any]:
    """The tile that is taken, then what could be better: other k, warps, and bytes on their way."""
    from albireo.backends.cuda.kernels.parts.tiles import Tile

    ks = {"bfloat16": (128, 256), "fp8": (128, 256), "int4.g128": (256,)}[dtype]
    sizes = [(k, warps, 72 << 10) for k, warps in product(ks, (2, 4))]
    sizes += [(base.k, base.warps, in_flight) for in_flight in (40 << 10, 110 << 10, 150 << 10)]
    tiles = [base]
    for k, warps, in_flight in sizes:
        stage = int(base.rows * code_bytes * k + base.tokens * 2 * k)
        tiles.append(Tile(base.rows, base.tokens, k, min(9, max(2, in_flight // stage)), warps))
    return list(dict.fromkeys(tiles))


def _text(tile: Any) -> str:
    return f"k {tile.k}, {tile.stages} stages, {tile.warps} warps"
