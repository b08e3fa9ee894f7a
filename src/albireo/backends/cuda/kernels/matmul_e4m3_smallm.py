"""matmul_e4m3_smallm: out = epilogue(x @ weight^T) of e4m3 on both sides (W8A8) for few tokens.

x: rows of e4m3 (../tokens.py), codes [T, K] and x_scales [T, groups]; weight fp8 or fp8.g128 [N, K]. out: [T, n]
float32, bfloat16 or float16, or rows of e4m3 themselves; rows contiguous inside. Epilogue: see parts/epilogue.py. Norms
inside linears: see parts/row_squares.py. Weight rows are the rows of the matrix unit's tile and tokens its columns (16,
32 or 64).

A sum is one chain of ascending k (parts/chain_e4m3.py), or num_parts() chains, a constant of the shape, added in
ascending order. The program that comes last of all that make the columns of a group does so, and ends them: of one tile
where numbers are written; of 128 outputs where codes are, whose scale needs all of them: two tiles, or four of gate and
up. It sets its counter back to zero. So a row's bits depend on neither T nor its place, and kernels/matmul_e4m3.py
gives the same. Tokens that are not there are not kept.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arriving import is_last_of, set_back
from albireo.backends.cuda.kernels.parts.chain_e4m3 import GROUP, chain_of_few
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.linear_cases import NORM_POINTERS, e4m3_pointer_types
from albireo.backends.cuda.kernels.parts.overlap import LINES, lines_ahead, start_early
from albireo.backends.cuda.kernels.parts.row_squares import (
    RowSquares,
    parts_arguments,
    row_factor,
    squares_arguments,
)
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS, Tile, tokens_of
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import TILE_ROWS, num_parts, part_length
from albireo.backends.cuda.tokens import e4m3_rows
from albireo.backends.cuda.workspace import MAX_COUNTERS, counters_and_parts

_GROUP = tl.constexpr(GROUP)
#: Sums of a tile that are ended at once: 32 a thread.
_ENDED = tl.constexpr(4096)


def tile_for(num_tokens: int) -> Tile:
    tokens = max(tokens_of(num_tokens), 16)
    return Tile(TILE_ROWS, tokens, GROUP, {16: 8, 32: 7, 64: 6}[tokens])


def tiles_together(end: Finish) -> int:
    """Tiles of weight rows whose outputs share scales."""
    if end.out.dtype == torch.float8_e4m3fn:
        return (2 if end.act else 1) * GROUP // TILE_ROWS
    is_coded = end.parts_out is not None and end.parts_out.scaled.dtype == torch.float8_e4m3fn
    return GROUP // TILE_ROWS if is_coded else 1


def num_part_elements(rows: int, k: int, dtype: str) -> int:
    """Elements of the parts of the largest call, which writes codes."""
    tiles = -(-rows // (2 * GROUP)) * (2 * GROUP // TILE_ROWS)
    return num_parts(rows, k, dtype) * tiles * TILE_ROWS * FEW_TOKENS


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_e4m3_smallm_kernel(
    x,
    x_scales,
    weight,
    scale,
    out,
    bias,
    residual,
    parts,
    counters,
    row_squares,
    gain,
    scaled,
    squares,
    num_tokens,
    n,
    k,
    num_rows,
    weight_stride,
    x_stride,
    x_scales_stride,
    out_stride,
    residual_stride,
    part_k,
    row_squares_stride,
    num_row_squares,
    norm_width,
    scaled_stride,
    squares_stride,
    norm_eps,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    PARTS: tl.constexpr,
    GROUPED: tl.constexpr,
    TOGETHER: tl.constexpr,
    NORM_LEVELS: tl.constexpr,
    LINES_AHEAD: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    tile = tl.program_id(0)
    part = tl.program_id(1)
    # Rows that are not there are copies of the last: read without a mask, never kept.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
    token = tl.arange(0, TOKENS)
    # Of tokens that are not there zeros are read, from nowhere.
    is_token = (token < num_tokens)[None, :]
    token = tl.minimum(token, num_tokens - 1)
    at_k = tl.arange(0, _GROUP)
    weight_at = weight + row.to(tl.int64)[:, None] * weight_stride + at_k[None, :]
    x_at = x + token[None, :] * x_stride + at_k[:, None]
    first = part * part_k
    end = tl.minimum(first + part_k, k)
    begin = tl.minimum(first, k - 1)
    start_early(weight + row.to(tl.int64) * weight_stride + begin, tl.maximum(end - 1, 0) - begin, LINES_AHEAD)
    acc = chain_of_few(
        weight_at, x_at, is_token, first, end, k, scale, row, num_rows, x_scales + token * x_scales_stride, GROUPED,
        ROWS, TOKENS,
    )  # fmt: skip
    if PARTS * TOGETHER == 1:
        _finish(
            tl.trans(acc), 0, tile * ROWS, num_tokens, n, num_rows, scale, out, out_stride, bias, residual,
            residual_stride, row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
            ACT, HAS_BIAS, HAS_RESIDUAL, GROUPED, NORM_LEVELS, gain, scaled, scaled_stride, squares, squares_stride,
        )  # fmt: skip
    else:
        SIZE: tl.constexpr = ROWS * TOKENS
        WIDTH: tl.constexpr = ROWS * TOGETHER
        PIECE: tl.constexpr = min(TOKENS, _ENDED // WIDTH)
        group = tile // TOGETHER
        of_group = parts + group * (TOGETHER * PARTS * SIZE)
        own = of_group + (tile % TOGETHER * PARTS + part) * SIZE
        place = tl.arange(0, TOKENS)[:, None] * ROWS + tl.arange(0, ROWS)[None, :]
        tl.store(own + place, tl.trans(acc), mask=(tl.arange(0, TOKENS) < num_tokens)[:, None])
        if is_last_of(counters + group, tl.minimum(TOGETHER, tl.num_programs(0) - group * TOGETHER) * PARTS):
            set_back(counters + group)
            at_row = tl.arange(0, WIDTH)
            of_row = of_group + at_row // ROWS * (PARTS * SIZE) + at_row % ROWS
            is_row = group * WIDTH + at_row < num_rows
            for first_token in tl.range(0, num_tokens, PIECE, num_stages=1):
                at_token = first_token + tl.arange(0, PIECE)
                at, is_there = (
                    of_row[None, :] + at_token[:, None] * ROWS,
                    (at_token < num_tokens)[:, None] & is_row[None, :],
                )
                total = tl.load(at, mask=is_there, other=0.0, cache_modifier=".cg")
                for i in tl.static_range(1, PARTS):
                    total += tl.load(at + i * SIZE, mask=is_there, other=0.0, cache_modifier=".cg")
                _finish(
                    total, first_token, group * WIDTH, num_tokens, n, num_rows, scale, out, out_stride, bias, residual,
                    residual_stride, row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
                    ACT, HAS_BIAS, HAS_RESIDUAL, GROUPED, NORM_LEVELS, gain, scaled, scaled_stride, squares,
                    squares_stride,
                )  # fmt: skip


@triton.jit
def _finish(
    sums, first_token, first_row, num_tokens, n, num_rows, scale, out, out_stride, bias, residual, residual_stride,
    row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, GROUPED: tl.constexpr,
    NORM_LEVELS: tl.constexpr,
    gain, scaled, scaled_stride, squares, squares_stride,
):  # fmt: skip
    if not GROUPED:
        sums *= tl.load(scale + tl.minimum(first_row + tl.arange(0, sums.shape[1]), num_rows - 1))[None, :]
    if row_squares is not None:
        token = tl.minimum(first_token + tl.arange(0, sums.shape[0]), num_tokens - 1)
        sums *= row_factor(
            row_squares, token, row_squares_stride, num_row_squares, norm_eps, norm_width, NORM_LEVELS
        )[:, None]  # fmt: skip
    finish(
        sums, first_token, first_row, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def matmul_e4m3_smallm(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    workspace: torch.Tensor | None = None,
    squares: RowSquares | None = None,
    tile: Tile | None = None,
) -> None:
    """At most FEW_TOKENS rows. x: rows of e4m3. tile: for tests; by default tile_for().

    squares: of x's rows, which are divided; else None.
    """
    assert weight.scale is not None
    rows, codes = weight.rows, weight.codes
    x, x_scales = e4m3_rows(x, weight.cols)
    tile = tile or tile_for(len(x))
    parts = num_parts(rows, weight.cols, weight.dtype)
    k, tiles, together = codes.shape[1], triton.cdiv(rows, TILE_ROWS), tiles_together(end)
    ahead = lines_ahead(x.device)
    counters, waiting = end.out, end.out
    if parts * together > 1:
        groups = triton.cdiv(tiles, together)
        assert groups <= MAX_COUNTERS
        counters, waiting = counters_and_parts(workspace, groups * together * parts * TILE_ROWS * tile.tokens)
    matmul_e4m3_smallm_kernel[(tiles, parts)](
        x=x,
        x_scales=x_scales,
        weight=codes,
        scale=weight.scale,
        parts=waiting,
        counters=counters,
        num_tokens=len(x),
        k=k,
        num_rows=rows,
        weight_stride=codes.stride(0),
        x_stride=x.stride(0),
        x_scales_stride=x_scales.stride(0),
        part_k=part_length(k, parts),
        **end.arguments(),
        **squares_arguments(squares),
        **parts_arguments(end.parts_out),
        PARTS=parts,
        GROUPED=weight.dtype == "fp8.g128",
        TOGETHER=together,
        LINES_AHEAD=ahead,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=False,
        launch_pdl=ahead > 0,
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "weight_stride", "x_stride", "x_scales_stride", "out_stride")
_MORE_NUMBERS = ("residual_stride", "part_k", "row_squares_stride", "num_row_squares", "norm_width", "scaled_stride")
_OF_NORMS = ("norm_width", "num_row_squares")


def aot_cases() -> list[AotCase]:
    def case(name: str, tokens: int, parts: int, act: int, is_early: bool = False, levels: int = 6) -> AotCase:
        """Of production: gate and up to codes, what leaves a norm in codes, and q, k and v (no levels of out)."""
        tile = tile_for(tokens)
        pointers = e4m3_pointer_types(act, levels) | {"parts": "*fp32"}
        if act or not levels:
            pointers["row_squares"] = "*fp32"
        together = 4 if act else 2 if levels else 1
        constants: dict[str, Any] = {"ACT": act, "HAS_BIAS": True, "HAS_RESIDUAL": not act, "PARTS": parts}
        constants |= {"GROUPED": name == "fp8.g128", "TOGETHER": together, "NORM_LEVELS": 6}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "LINES_AHEAD": LINES * is_early}
        constants |= {name: None for name in NORM_POINTERS if name not in pointers}
        words = {90: (f"QGMMA.64x{tokens}x32", "LDGSTS.E.BYPASS.128"), 100: ("UTCQMMA",), 89: ("QMMA",)}
        if is_early:
            words = {90: (*words[90], "CCTL.E.PF2", "ACQBULK", "PREEXIT")}
        elif tokens > 16:
            words = {90: words[90]}
        return AotCase(
            f"matmul_e4m3_smallm.{name}.{'act' if act else 'norm' if levels else 'plain'}.{tokens}",
            matmul_e4m3_smallm_kernel,
            pointers | dict.fromkeys((*_NUMBERS, *_MORE_NUMBERS, "squares_stride"), "i32") | {"norm_eps": "fp32"},
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS[1:], *(name for name in _MORE_NUMBERS if name not in _OF_NORMS)),
            max_registers=160 if tokens == 16 else 255,  # shared memory is for two programs a multiprocessor
            max_shared=99 << 10,
            words=words,
            architectures=tuple(words),
        )

    return [
        case("fp8", 16, 1, 1),
        case("fp8", 16, 4, 0, is_early=True),
        case("fp8", 64, 4, 0),
        case("fp8", 64, 1, 1),
        case("fp8", 64, 1, 0, levels=0),
        case("fp8.g128", 16, 4, 0),
    ]
