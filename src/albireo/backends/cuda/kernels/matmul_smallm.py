"""matmul_smallm: out = epilogue(x @ weight^T) for few tokens, as fast as the weight streams in.

x: [T, K], weight: [N, K], both of one type, float32, float16 or bfloat16; or weight fp8, fp8.g128, int4.gG or fp4.gG
and x bfloat16 (W8A16, W4A16). out: [T, n] float32, bfloat16 or float16; rows contiguous inside. Epilogue: see
parts/epilogue.py. Norms inside linears: see parts/row_squares.py. Weight rows are the rows of the matrix unit's tile
and tokens its columns (8, 16, 32 or 64), so that it is used even for one token.

A sum is one chain of ascending k (parts/chain.py), or num_parts() chains, a constant of the shape, which are added in
ascending order by the program that comes last; it sets its counter back to zero. So a row's bits depend on neither T
nor its place, and kernels/matmul.py gives the same. Padding rows are computed as any others.

With leaves, a launch computes as many products of equal parts of the inputs, of plain numbers, without an epilogue:
out is [leaves, T, n] without gaps, and each has the bits of a launch of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import ARCHITECTURES, AotCase
from albireo.backends.cuda.kernels.parts.arriving import is_last_of, set_back
from albireo.backends.cuda.kernels.parts.chain import UNSCALED, chain, times_channels, width_of
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.linear_cases import NORM_POINTERS, pointer_types
from albireo.backends.cuda.kernels.parts.overlap import LINES, lines_ahead, start_early
from albireo.backends.cuda.kernels.parts.row_squares import (
    RowSquares,
    parts_arguments,
    row_factor,
    squares_arguments,
)
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS, Tile, tokens_of
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES, group_of, is_of_4_bits, operands, zeros_of
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import TILE_ROWS, num_parts, part_length
from albireo.backends.cuda.workspace import MAX_COUNTERS, counters_and_parts


def tile_for(num_tokens: int, dtype: str) -> Tile:
    tokens = tokens_of(num_tokens)
    if dtype == "float32":
        return Tile(TILE_ROWS, tokens, 32, 3)
    if is_of_4_bits(dtype):
        # two warps share no conversion; numbers of many groups take the registers of four
        warps = 2 if tokens <= 16 and group_of(dtype) == 128 else 4
        return Tile(TILE_ROWS, tokens, 256, 5 if tokens <= 16 else 3, warps)
    if dtype in SCALES:
        return Tile(TILE_ROWS, tokens, 128, *{8: (6, 4), 16: (5, 2), 32: (5, 2), 64: (4, 4)}[tokens])
    return Tile(TILE_ROWS, tokens, 128, {8: 4, 16: 5, 32: 4, 64: 3}[tokens])


def num_part_elements(rows: int, k: int, dtype: str) -> int:
    """Elements of the parts of the largest call."""
    parts = num_parts(rows, k, dtype)
    return 0 if parts == 1 else parts * -(-rows // TILE_ROWS) * TILE_ROWS * FEW_TOKENS


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_smallm_kernel(
    x,
    weight,
    scale,
    zero,
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
    SCALED: tl.constexpr,
    NIBBLE_GROUP: tl.constexpr,
    NORM_LEVELS: tl.constexpr,
    EVEN_K: tl.constexpr,
    LINES_AHEAD: tl.constexpr,
    LEAVES: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile = tl.program_id(0)
    part = tl.program_id(1)
    if LEAVES > 1:
        leaf = tl.program_id(2)
        x += leaf * k
        weight += leaf * k
        out += leaf * num_tokens * n
        parts += leaf * tl.num_programs(0) * (PARTS * ROWS * TOKENS)
        counters += leaf * tl.num_programs(0)
    # Rows that are not there are copies of the last: read without a mask, never kept.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
    # Of tokens that are not there zeros are read, from nowhere.
    is_token = (tl.arange(0, TOKENS) < num_tokens)[None, :]
    token = tl.minimum(tl.arange(0, TOKENS), num_tokens - 1)
    at_k = width_of(weight, BLOCK_K)
    weight_at = weight + row.to(tl.int64)[:, None] * weight_stride + at_k[None, :]
    x_at = x + token[None, :] * x_stride + at_k[:, None]
    first = part * part_k
    end = tl.minimum(first + part_k, k)
    # codes of an element that is read at once
    OF_WORD: tl.constexpr = 1 if weight.dtype.element_ty != tl.int32 else 8 if NIBBLE_GROUP > 0 else 4
    begin = tl.minimum(first, k - 1) // OF_WORD
    last = tl.maximum(end - 1, 0) // OF_WORD - begin
    start_early(weight + row.to(tl.int64) * weight_stride + begin, last, LINES_AHEAD)
    acc = chain(
        weight_at, x_at, at_k, is_token, first, end, k, scale, zero, row, num_rows, SCALED, NIBBLE_GROUP, EVEN_K, ROWS,
        TOKENS, BLOCK_K,
    )  # fmt: skip
    if PARTS == 1:
        _finish(
            acc, token, row, tile * ROWS, scale, num_tokens, n, out, out_stride, bias, residual, residual_stride,
            row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
            ACT, HAS_BIAS, HAS_RESIDUAL, SCALED, NORM_LEVELS, gain, scaled, scaled_stride, squares, squares_stride,
        )  # fmt: skip
    else:
        place = tl.arange(0, ROWS)[:, None] * TOKENS + tl.arange(0, TOKENS)[None, :]
        of_tile = parts + tile * (PARTS * ROWS * TOKENS) + place
        tl.store(of_tile + part * (ROWS * TOKENS), acc)
        if is_last_of(counters + tile, PARTS):
            total = tl.load(of_tile, cache_modifier=".cg")
            for i in tl.static_range(1, PARTS):
                total += tl.load(of_tile + i * (ROWS * TOKENS), cache_modifier=".cg")
            set_back(counters + tile)
            _finish(
                total, token, row, tile * ROWS, scale, num_tokens, n, out, out_stride, bias, residual, residual_stride,
                row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
                ACT, HAS_BIAS, HAS_RESIDUAL, SCALED, NORM_LEVELS, gain, scaled, scaled_stride, squares, squares_stride,
            )  # fmt: skip


@triton.jit
def _finish(
    sums, token, row, first_row, scale, num_tokens, n, out, out_stride, bias, residual, residual_stride,
    row_squares, row_squares_stride, num_row_squares, norm_eps, norm_width,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, SCALED: tl.constexpr,
    NORM_LEVELS: tl.constexpr,
    gain, scaled, scaled_stride, squares, squares_stride,
):  # fmt: skip
    sums = times_channels(sums, scale, row, SCALED)
    if row_squares is not None:
        sums *= row_factor(
            row_squares, token, row_squares_stride, num_row_squares, norm_eps, norm_width, NORM_LEVELS
        )[None, :]  # fmt: skip
    finish(
        tl.trans(sums), 0, first_row, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def matmul_smallm(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    workspace: torch.Tensor | None = None,
    squares: RowSquares | None = None,
    tile: Tile | None = None,
    leaves: int = 1,
) -> None:
    """At most FEW_TOKENS rows. tile: for tests; by default tile_for().

    squares: of x's rows, which are divided; else None. leaves: see above; end.out is then [leaves * T, n], and
    workspace for as many.
    """
    rows, k, dtype = weight.rows, weight.cols // leaves, weight.dtype
    (codes, scaled), zeros = operands(weight), zeros_of(weight)
    tile = tile or tile_for(len(x), dtype)
    parts = num_parts(rows, k, dtype)
    tiles = triton.cdiv(rows, TILE_ROWS)
    ahead = lines_ahead(x.device)
    counters, waiting = end.out, end.out
    if parts > 1:
        assert leaves * tiles <= MAX_COUNTERS
        counters, waiting = counters_and_parts(workspace, leaves * parts * tiles * tile.rows * tile.tokens)
    matmul_smallm_kernel[(tiles, parts) if leaves == 1 else (tiles, parts, leaves)](
        x=x,
        weight=codes,
        scale=end.out if weight.scale is None else weight.scale,
        zero=end.out if zeros is None else zeros,
        parts=waiting,
        counters=counters,
        num_tokens=len(x),
        k=k,
        num_rows=rows,
        weight_stride=codes.stride(0),
        x_stride=x.stride(0),
        part_k=part_length(k, parts),
        **end.arguments(),
        **squares_arguments(squares),
        **parts_arguments(end.parts_out),
        PARTS=parts,
        SCALED=scaled,
        NIBBLE_GROUP=group_of(dtype),
        EVEN_K=k % tile.k == 0,
        LINES_AHEAD=ahead,
        LEAVES=leaves,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=dtype == "float32",
        launch_pdl=ahead > 0,
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "weight_stride", "x_stride", "out_stride", "residual_stride", "part_k")
_OF_NORMS = ("row_squares_stride", "num_row_squares", "norm_width", "scaled_stride", "squares_stride")


def aot_cases() -> list[AotCase]:
    def case(
        dtype: str,
        tokens: int,
        parts: int,
        act: int,
        max_registers: int,
        levels: int = 0,
        is_early: bool = False,
        architectures: tuple[int, ...] = ARCHITECTURES,
        leaves: int = 1,
    ) -> AotCase:
        tile = tile_for(tokens, dtype)
        pointers = pointer_types(dtype, act, levels) | {"parts": "*fp32", "counters": "*i32"}
        constants: dict[str, Any] = {
            "ACT": act,
            "HAS_BIAS": leaves == 1,
            "HAS_RESIDUAL": not act and leaves == 1,
            "PARTS": parts,
            "LEAVES": leaves,
            "EVEN_K": True,
        }
        constants |= {
            "SCALED": SCALES.get(dtype, UNSCALED),
            "NIBBLE_GROUP": group_of(dtype),
            "NORM_LEVELS": levels,
        }
        constants |= {name: None for name in NORM_POINTERS if name not in pointers}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k, "LINES_AHEAD": LINES * is_early}
        loads = "LDGSTS.E.BYPASS.128"
        is_wide = tokens > 8 and tile.warps == 4  # wgmma: four warps and 16 tokens at least
        words = {
            80: ("HMMA", "LDGSTS.E.BYPASS"),
            # of 8 tokens Triton makes mma, or wgmma, depending on its version
            90: (f"HGMMA.64x{tokens}x16" if is_wide else "MMA.", loads),
            100: ("UTCHMMA" if is_wide else "LDGSTS.E.BYPASS",),
        }
        if dtype == "float32":
            words = {90: ("FFMA",)}
        if is_early:
            words = {90: (*words[90], "CCTL.E.PF2", "ACQBULK", "PREEXIT")}
        return AotCase(
            f"matmul_smallm.{dtype}.{'norms.' * bool(levels)}{'early.' * is_early}{'leaves.' * (leaves > 1)}{tokens}",
            matmul_smallm_kernel,
            pointers | dict.fromkeys((*_NUMBERS, *_OF_NORMS), "i32") | {"norm_eps": "fp32"},
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS[1:]),
            max_registers=max_registers,
            max_shared=128 << 10,
            words=words,
            architectures=(90,) if is_early else architectures,
            fp_fusion=dtype == "float32",
        )

    return [
        case("bfloat16", 8, 4, 0, 96),
        case("bfloat16", 64, 4, 0, 168),
        case("bfloat16", 16, 4, 0, 128, levels=6),
        case("bfloat16", 16, 2, 0, 128, architectures=(90,), leaves=4),
        case("float32", 16, 1, 0, 96, architectures=(90,)),
        case("float32", 8, 32, 0, 96, architectures=(90,)),
        case("fp8", 8, 1, 1, 96, architectures=(80, 90)),
        case("fp8", 16, 4, 0, 128, is_early=True),
        case("fp8.g128", 64, 4, 0, 200),
        case("int4.g128", 8, 4, 0, 168),
        case("int4.g128", 64, 1, 1, 255),
        case("int4.g32", 16, 4, 0, 200),
        # but for how a code becomes a number these are those of int4
        case("fp4.g32", 8, 4, 0, 168, architectures=(90,)),
        case("fp4.g16", 64, 1, 1, 255, architectures=(90, 100)),
    ]
