"""matmul: out = epilogue(x @ weight^T) for many tokens, with the bits of kernels/matmul_smallm.py.

Arguments, types and epilogue are those of matmul_smallm. Weight rows are the rows of the matrix unit's tile here too,
and the parts of a sum that matmul_smallm gives to several programs follow each other in one: each a chain of its own
from zero, added in ascending order. Whether Hopper's wgmma gives an element the same bits at every width of a tile is
to be shown on one; were it not so, tile_for() of both kernels would have to give one width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import ARCHITECTURES, AotCase
from albireo.backends.cuda.kernels.matmul_smallm import (
    NORM_POINTERS,
    SCALES,
    group_of,
    num_parts,
    operands,
    part_length,
    pointer_types,
)
from albireo.backends.cuda.kernels.parts.chain import CHANNELS, GROUP, NIBBLES, UNSCALED, chain, width_of
from albireo.backends.cuda.kernels.parts.epilogue import finish
from albireo.backends.cuda.kernels.parts.row_squares import RowParts
from albireo.backends.cuda.kernels.parts.tiles import Tile, place
from albireo.backends.cuda.matrix import DeviceMatrix

_CHANNELS = tl.constexpr(CHANNELS)


def tile_for(num_tokens: int, dtype: str, parts: int, act: int, is_fp8: bool) -> Tile:
    """is_fp8: x too. Parts, groups and a residual have numbers of their own, which take registers."""
    if dtype == "float32":
        return Tile(64, 64, 32, 3)
    if SCALES.get(dtype) == NIBBLES:
        return Tile(64, 64, 2 * GROUP, 3, 4)
    if dtype in SCALES:
        return Tile(128, 64, GROUP, 3, 8) if dtype == "fp8" and not is_fp8 else Tile(64, 128, GROUP, 3, 8)
    return Tile(128, 256, 64, 3, 8) if act and parts == 1 and num_tokens > 128 else Tile(128, 128, 64, 4, 8)


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_kernel(
    x,
    weight,
    scale,
    zero,
    x_scale,
    out,
    bias,
    residual,
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
    scaled_stride,
    squares_stride,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    PARTS: tl.constexpr,
    SCALED: tl.constexpr,
    NIBBLE_GROUP: tl.constexpr,
    X_SCALED: tl.constexpr,
    EVEN_K: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile, slab = place(tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS))
    # Rows and tokens that are not there are copies of the last: read without a mask, never kept.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
    token = tl.minimum(slab * TOKENS + tl.arange(0, TOKENS), num_tokens - 1)
    at_k = width_of(weight, BLOCK_K)
    weight_at = weight + row.to(tl.int64)[:, None] * weight_stride + at_k[None, :]
    x_at = x + token.to(tl.int64)[None, :] * x_stride + at_k[:, None]
    is_token = tl.full((1, TOKENS), True, tl.int1)
    end = tl.minimum(part_k, k)
    total = chain(
        weight_at, x_at, at_k, is_token, 0, end, k, scale, zero, row, num_rows, SCALED, NIBBLE_GROUP, EVEN_K, ROWS,
        TOKENS, BLOCK_K,
    )  # fmt: skip
    if PARTS > 1:
        for first in range(part_k, k, part_k):
            end = tl.minimum(first + part_k, k)
            total += chain(
                weight_at, x_at, at_k, is_token, first, end, k, scale, zero, row, num_rows, SCALED, NIBBLE_GROUP,
                EVEN_K, ROWS, TOKENS, BLOCK_K,
            )  # fmt: skip
    if SCALED == _CHANNELS:
        total *= tl.load(scale + row)[:, None]
    if X_SCALED:
        total *= tl.load(x_scale + token)[None, :]
    finish(
        tl.trans(total), slab * TOKENS, tile * ROWS, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def matmul(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    n: int,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    act: int = 0,
    x_scale: torch.Tensor | None = None,
    tile: Tile | None = None,
    parts_out: RowParts | None = None,
) -> None:
    """Any number of rows. act: epilogue.ACTS. tile: for tests; by default tile_for().

    parts_out: see RowParts; else None. x_scale may be what a norm divides rows by, too.
    """
    rows, k, dtype = weight.rows, weight.cols, weight.dtype
    codes, scaled = operands(weight, x)
    parts = num_parts(rows, k, dtype)
    if x.dtype == torch.float8_e4m3fn:
        k = codes.shape[1]
    tile = tile or tile_for(len(x), dtype, parts, act, x.dtype == torch.float8_e4m3fn)
    grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(len(x), tile.tokens),)
    matmul_kernel[grid](
        x,
        codes,
        out if weight.scale is None else weight.scale,
        out if weight.zero is None else weight.zero,
        out if x_scale is None else x_scale,
        out,
        out if bias is None else bias,
        out if residual is None else residual,
        None if parts_out is None else parts_out.gain,
        None if parts_out is None else parts_out.scaled,
        None if parts_out is None else parts_out.squares,
        len(x),
        n,
        k,
        rows,
        codes.stride(0),
        x.stride(0),
        out.stride(0),
        0 if residual is None else residual.stride(0),
        part_length(k, parts),
        0 if parts_out is None else parts_out.scaled.stride(0),
        0 if parts_out is None else parts_out.squares.stride(0),
        ACT=act,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        PARTS=parts,
        SCALED=scaled,
        NIBBLE_GROUP=group_of(dtype),
        X_SCALED=x_scale is not None,
        EVEN_K=k % tile.k == 0,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=dtype == "float32",
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "weight_stride", "x_stride", "out_stride", "residual_stride", "part_k")


def aot_cases() -> list[AotCase]:
    def case(
        dtype: str,
        parts: int,
        act: int,
        words: Mapping[int, tuple[str, ...]],
        is_fp8: bool = False,
        levels: int = 0,
    ) -> AotCase:
        tile = tile_for(512, dtype, parts, act, is_fp8)
        pointers = pointer_types(dtype, act, is_fp8, levels)
        constants: dict[str, Any] = {
            "ACT": act,
            "HAS_BIAS": True,
            "HAS_RESIDUAL": not act,
            "PARTS": parts,
            "EVEN_K": True,
        }
        constants |= {"SCALED": SCALES.get(dtype, UNSCALED), "NIBBLE_GROUP": group_of(dtype), "X_SCALED": is_fp8}
        pointers.pop("row_squares", None)
        constants |= {name: None for name in NORM_POINTERS[1:] if name not in pointers}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k}
        return AotCase(
            f"matmul.{dtype}{'.fp8' * is_fp8}{'.norms' * bool(levels)}",
            matmul_kernel,
            pointers | dict.fromkeys((*_NUMBERS, "scaled_stride", "squares_stride"), "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS[1:]),
            words=words,
            # on 8.0 a register of 4 bits' numbers goes through memory; narrower tiles would cost all GPUs more
            architectures=(90, 100) if is_fp8 or SCALES.get(dtype) == NIBBLES else ARCHITECTURES,
            fp_fusion=dtype == "float32",
        )

    units = {80: ("HMMA",), 90: ("HGMMA.64x128x16",), 100: ("UTCHMMA",)}
    return [
        case("bfloat16", 4, 0, units),
        case("bfloat16", 4, 0, units, levels=6),
        case("float16", 1, 1, {80: ("HMMA",), 90: ("HGMMA.64x256x16",), 100: ("UTCHMMA",)}),
        case("float32", 1, 0, {90: ("FFMA",)}),
        case("fp8", 4, 0, {80: ("HMMA",), 90: ("HGMMA.64x64x16",), 100: ("UTCHMMA",)}),
        case("fp8.g128", 4, 0, {80: ("HMMA",), 90: ("HGMMA.64x64x16",), 100: ("UTCHMMA",)}),
        case("int4.g128", 4, 0, {80: ("HMMA",), 90: ("HGMMA",), 100: ("UTCHMMA",)}),
        case("fp8.g128", 4, 0, {90: ("QGMMA.64x64x32",), 100: ("UTCQMMA",)}, is_fp8=True),
    ]
