"""matmul_groups: out = epilogue(x @ weight^T) of token rows and weights whose inputs share a scale in groups of G.

x: token rows (../tokens.py) of K codes, T of them. weight: a DeviceMatrix [N, K] of int8.gG, int4.gG, their affine
kinds, int4p.gG, or fp4.gG; out: [T, n] float32, bfloat16 or float16, rows contiguous inside. Epilogue: see
parts/epilogue.py.

A group's sum of products is exact in 32 bits. integer: sums without what the zero point adds, times scale, are added as
one chain of float32, ascending, multiply-adds fused; affine: the offset times the sum of x's codes is added behind
each; progressive: all groups are one sum of 32 bits; microscaled: twice a number is a whole one, and a group's gamma
is its scale. Last come the channel's scale, where there is one, and the token's. So the bits are those of the native
kernels, whatever the tile (but for int8's affine kinds, which have signed codes here and so another offset). Padding
rows are computed as any others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.chain_groups import KINDS, chain_of_groups
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, FEW_TOKENS, Tile, place, tokens_of
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.tokens import token_rows
from albireo.encodings import encoding

#: Inputs that a matrix unit multiplies at once, at least.
_LEAST_STEP = 32


def tile_for(num_tokens: int, rows: int, group: int, act: int, is_4_bit: bool = False) -> Tile:
    """k: inputs that are read at once. Few tokens: so many weight rows that there are enough tiles, gate rows
    with their up rows."""
    step = 8 * PLANE if is_4_bit else max(group, _LEAST_STEP)
    if num_tokens > FEW_TOKENS:  # with half planes wider ones would keep registers in memory
        return Tile(64, 64 if is_4_bit and group < PLANE else 128, step, 3, 8)
    tokens = max(16, tokens_of(num_tokens))  # fewer are too few bytes a thread
    height = 64 if act or rows >= 64 * BUSY_TILES else 32
    if is_4_bit:
        return Tile(height, tokens, step, 5 if tokens < 64 else 4, 2 if height == 32 and tokens == 16 else 4)
    return Tile(height, tokens, step, 8 if tokens < 64 else 5)


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_groups_kernel(
    x,
    floats,
    codes,
    scale,
    zero,
    offset,
    gamma,
    out,
    bias,
    residual,
    num_tokens,
    n,
    k,
    num_rows,
    x_stride,
    floats_stride,
    first_float,
    codes_stride,
    out_stride,
    residual_stride,
    KIND: tl.constexpr,
    NIBBLES: tl.constexpr,
    GROUP: tl.constexpr,
    EVEN_K: tl.constexpr,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    STEP: tl.constexpr,
):
    tile, slab = place(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS))
    # Rows and tokens that are not there are copies of the last: read without a mask, never kept.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
    token = tl.minimum(slab * TOKENS + tl.arange(0, TOKENS), num_tokens - 1).to(tl.int64)
    token_scale = floats + token * floats_stride + first_float
    result = chain_of_groups(
        codes, codes_stride, x, x_stride, token_scale + 1, row, token, k, num_rows, scale, zero, offset, gamma,
        KIND, NIBBLES, GROUP, EVEN_K, ROWS, TOKENS, STEP,
    )  # fmt: skip
    result *= tl.load(token_scale)[None, :]
    finish(
        tl.trans(result), slab * TOKENS, tile * ROWS, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL,
    )  # fmt: skip


def matmul_groups(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    tile: Tile | None = None,
) -> None:
    """tile: for tests; by default tile_for()."""
    e = encoding(weight.dtype)
    group = e.group or weight.cols
    tile = tile or tile_for(len(x), weight.rows, group, end.act, e.bits == 4)
    tokens = token_rows(x, weight.cols)
    grid = (triton.cdiv(weight.rows, tile.rows) * triton.cdiv(len(x), tile.tokens),)

    def or_out(tensor: torch.Tensor | None) -> torch.Tensor:
        return end.out if tensor is None else tensor

    codes = weight.codes.view(torch.int32) if e.bits == 4 else weight.codes
    matmul_groups_kernel[grid](
        x=tokens.codes,
        floats=tokens.floats,
        codes=codes,
        scale=weight.scale,
        zero=or_out(weight.zero),
        offset=or_out(weight.offset),
        gamma=or_out(weight.gamma),
        num_tokens=len(x),
        k=weight.cols,
        num_rows=weight.rows,
        x_stride=tokens.codes.stride(0),
        floats_stride=tokens.floats.stride(0),
        first_float=tokens.first,
        codes_stride=codes.stride(0),
        **end.arguments(),
        KIND=KINDS[e.kind],
        NIBBLES=e.bits == 4,
        GROUP=group,
        EVEN_K=weight.cols % tile.k == 0,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        STEP=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=False,
    )


_POINTERS = {
    "x": "*i8",
    "floats": "*fp32",
    "scale": "*fp32",
    "zero": "*u8",
    "offset": "*fp32",
    "gamma": "*u8",
    "bias": "*fp32",
    "residual": "*fp32",
}
_STRIDES = ("x_stride", "floats_stride", "first_float", "codes_stride", "out_stride", "residual_stride")


def aot_cases() -> list[AotCase]:
    def case(name: str, num_tokens: int, rows: int, act: int, words: Mapping[int, tuple[str, ...]]) -> AotCase:
        e = encoding(name)
        tile = tile_for(num_tokens, rows, e.group or 0, act, e.bits == 4)
        pointers = _POINTERS | {"codes": "*i32" if e.bits == 4 else "*i8", "out": "*bf16" if act else "*fp32"}
        constants = {"KIND": KINDS[e.kind], "NIBBLES": e.bits == 4, "GROUP": e.group, "EVEN_K": True, "ACT": act}
        constants |= {"HAS_BIAS": True, "HAS_RESIDUAL": not act}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "STEP": tile.k}
        return AotCase(
            f"matmul_groups.{name}.{tile.rows}x{tile.tokens}",
            matmul_groups_kernel,
            pointers | dict.fromkeys(("num_tokens", "n", "k", "num_rows", *_STRIDES), "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, "n", "k", "num_rows", *_STRIDES),
            words=words,
            architectures=tuple(words),
        )

    # a tile that is IMMA on Hopper is so on the others: one of them is compiled for these, the largest for Blackwell
    return [
        case("int4.g128", 1, 4096, 0, {80: ("IMMA",), 90: ("IMMA",), 100: ()}),
        case("int4.g32.affine", 64, 4096, 0, {90: ("IMMA",)}),
        case("int4p.g64", 16, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",)}),
        case("int4.g128", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x64x32",), 100: ()}),
        case("int8.g32", 16, 4096, 0, {90: ("IMMA",)}),
        case("fp4.g32", 16, 4096, 0, {90: ("IMMA",)}),
        case("fp4.g16", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x32x32",)}),
    ]
