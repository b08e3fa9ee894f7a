"""Nested weights (GGUF): decoding steps of an 8B shape, linears of few tokens with other tiles, a layer of experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import torch
from report import Row, verdict
from setup import Setup, attempt

from parts.decode import decode_of
from parts.expert_speed import layer_of

SHAPES = {"gate_up": (28672, 4096), "down": (4096, 14336)}


def run(setup: Setup) -> Iterator[Row]:
    from model import NESTED

    import albireo.backends.cuda.kernels.parts.chain_nests  # noqa: F401 - where it is missing the part is skipped

    kinds, shapes = setup.pick(list(NESTED), ["q6_k"]), setup.pick(SHAPES, {"down": (128, 256)})
    for kind in kinds:
        yield from attempt(kind, lambda kind=kind: decode_of(setup, kind))
    for kind, tokens in product(kinds, setup.pick((1, 16, 64), (1,))):
        yield from attempt(f"{kind} of {tokens}", lambda args=(setup, kind, tokens, shapes): _tiles(*args))
    yield from attempt("experts in q4_k", lambda: layer_of(setup, "q4_k", None))


def _tiles(setup: Setup, kind: str, tokens: int, shapes: dict[str, tuple[int, int]]) -> Iterator[Row]:
    from inputs import activations
    from model import fill_matrix

    from albireo.backends.cuda.encoded_matrix import empty_matrix
    from albireo.backends.cuda.kernels.matmul_groups import matmul_groups, tile_for
    from albireo.backends.cuda.kernels.parts.epilogue import Finish
    from albireo.encodings import encoding

    e = encoding(kind)
    for name, (rows, cols) in shapes.items():
        if setup.seconds_left < 8:
            return
        matrix = empty_matrix(kind, rows, cols, setup.device)
        fill_matrix(matrix, setup, 1)
        x, _ = activations(setup, kind, tokens, cols)
        end = Finish(torch.empty((tokens, rows), device=setup.device), rows)
        taken = tile_for(tokens, rows, e, 0, setup.chip)
        launches = {_text(tile): partial(matmul_groups, x, matrix, end, tile=tile) for tile in _candidates(taken)}
        setup.warm(launches.values())
        times = {}
        for text, launch in list(launches.items())[: setup.pick(99, 2)]:
            with suppress(Exception):  # more shared memory than there is, for one
                times[text] = setup.seconds(launch, rounds=7)
        size = cols * rows * e.bytes_per_weight
        share = size / times[_text(taken)] / setup.bandwidth
        what = f"{kind} {name}, {tokens} tokens"
        yield Row(what, times[_text(taken)] * 1e6, "us", f"{share:.2f} of the bandwidth")
        yield verdict(what, "matmul_groups.tile_for", _text(taken), times)


def _candidates(taken: Any) -> list[Any]:
    """The tile that is taken, and what could be better: other heights, warps, bytes on their way."""
    found = [taken, *(replace(taken, warps=warps) for warps in (2, 4, 8))]
    found += [replace(taken, stages=stages) for stages in (2, 3, 4, 6)]
    return list(dict.fromkeys([*found, replace(taken, rows=96 - taken.rows)]))


def _text(tile: Any) -> str:
    return f"{tile.rows} rows, {tile.stages} stages, {tile.warps} warps"
