"""matmul_groups: out = epilogue(x @ weight^T) of token rows and weights whose inputs share a scale in groups of G.

x: token rows (../tokens.py) of K codes, T of them. weight: a DeviceMatrix [N, K] of int8.gG, int4.gG, their affine
kinds, int4p.gG, fp4.gG, or nested (q2_k to iq1_m); out: [T, n] float32, bfloat16 or float16, rows contiguous inside.
Epilogue: see parts/epilogue.py.

A group's sum of products is exact in 32 bits. integer: sums without what the zero point adds, times scale, are added as
one chain of float32, ascending, multiply-adds fused; affine: the offset times the sum of x's codes is added behind
each; progressive: all groups are one sum of 32 bits; microscaled: twice a number is a whole one, and a group's gamma
is its scale; nested: parts/chain_nests.py. Last come the channel's scale, where there is one, and the token's. So the
bits are those of the native kernels, whatever the tile (but for int8's affine kinds, which have signed codes here and
so another offset, and for nested ones, of which a nest is summed up before it becomes a float32). Padding rows are
computed as any others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.group_operands import constants_of, lies_in_words, operands_of, pointers_of
from albireo.backends.cuda.kernels.parts.chain_groups import chain_of_groups
from albireo.backends.cuda.kernels.parts.chain_nests import NESTED_KINDS, chain_of_nests
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, FEW_TOKENS, Tile, place, tokens_of
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.tokens import token_rows
from albireo.encodings import Encoding, encoding

#: Inputs that a matrix unit multiplies at once, at least.
_LEAST_STEP = 32
#: Of kinds, the first that is nested.
_NESTED = tl.constexpr(min(NESTED_KINDS.values()))


def most_tokens(e: Encoding, chip: Chip) -> int:
    """Of a tile that is multiplied by such weights.

    Sums of a nest's products, and of its offsets, take registers as those of all nests do, and those of a group. With
    tcgen05 each group's sum has columns of tensor memory of its own, of which there are 512: of more than 256 a step
    Triton 3.9 makes a trap.
    """
    most = 128
    if lies_in_words(e):
        is_half = (e.group or 0) < PLANE  # with half planes wider ones would keep registers in memory
        most = 32 if is_half and e.kind == "nested affine" else 64 if is_half or e.is_nested else 128
        if chip.has_tcgen05:
            most = min(most, e.group or most)
    return most


def tile_for(num_tokens: int, rows: int, e: Encoding, act: int, chip: Chip) -> Tile:
    """e: with groups. k: inputs that are read at once. Few tokens: so many weight rows that there are enough tiles,
    gate rows with their up rows."""
    in_words, group = lies_in_words(e), e.group or 0
    step, most = 8 * PLANE if in_words else max(group, _LEAST_STEP), most_tokens(e, chip)
    tokens = max(16, tokens_of(num_tokens))  # fewer are too few bytes a thread
    height = 64 if act or rows >= 64 * BUSY_TILES else 32
    is_large = height == 64 and tokens >= most and (e.is_nested or chip.has_tcgen05)
    if num_tokens > FEW_TOKENS or is_large:
        return Tile(64, most, step, 2 if e.is_nested else 3, 8 if most > 16 else 4)
    if in_words:
        return Tile(height, tokens, step, 5 if tokens < 64 else 4, 2 if height == 32 and tokens == 16 else 4)
    return Tile(height, tokens, step, 8 if tokens < 64 else 5)


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_groups_kernel(
    x,
    floats,
    codes,
    high,
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
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
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
    if KIND < _NESTED:
        result = chain_of_groups(
            codes, codes_stride, x, x_stride, token_scale + 1, row, token, k, num_rows, scale, zero, offset, gamma,
            KIND, BITS == 4, GROUP, EVEN_K, ROWS, TOKENS, STEP,
        )  # fmt: skip
    else:
        result = chain_of_nests(
            codes, codes_stride, high, x, x_stride, token_scale + 1, row, token, k, num_rows, scale, zero, offset,
            gamma, KIND, BITS, GROUP, TABLE, UNIT, EVEN_K, ROWS, TOKENS,
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
    tile = tile or tile_for(len(x), weight.rows, e, end.act, chip_of(x.device))
    tokens = token_rows(x, weight.cols)
    grid = (triton.cdiv(weight.rows, tile.rows) * triton.cdiv(len(x), tile.tokens),)
    matmul_groups_kernel[grid](
        x=tokens.codes,
        floats=tokens.floats,
        **operands_of(weight, end.out),
        num_tokens=len(x),
        k=weight.cols,
        num_rows=weight.rows,
        x_stride=tokens.codes.stride(0),
        floats_stride=tokens.floats.stride(0),
        first_float=tokens.first,
        **end.arguments(),
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
    "bias": "*fp32",
    "residual": "*fp32",
}
_STRIDES = ("x_stride", "floats_stride", "first_float", "codes_stride", "out_stride", "residual_stride")


def aot_cases() -> list[AotCase]:
    def case(
        name: str, num_tokens: int, rows: int, act: int, words: Mapping[int, tuple[str, ...]], max_spills: int = 0
    ) -> AotCase:
        e = encoding(name)
        (tile,) = {tile_for(num_tokens, rows, e, act, Chip(132, architecture)) for architecture in words}
        pointers = _POINTERS | pointers_of(e) | {"out": "*bf16" if act else "*fp32"}
        constants = constants_of(e) | {"EVEN_K": True, "ACT": act}
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
            max_spills=max_spills,
            words=words,
            architectures=tuple(words),
        )

    # a tile that is IMMA on Hopper is so on the others: one of them is compiled for these, the largest for Blackwell,
    # where the word sought is that of its matrix unit: it is not there where Triton made a trap
    return [
        case("int4.g128", 1, 4096, 0, {80: ("IMMA",), 90: ("IMMA",), 100: ("IMMA",)}),
        case("int4.g32.affine", 64, 4096, 0, {90: ("IMMA",)}),
        case("int4.g32.affine", 512, 28672, 1, {100: ("UTC",)}),
        case("int4p.g64", 16, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",)}),
        case("int4p.g64", 512, 28672, 1, {100: ("UTC",)}),
        case("int4.g128", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x64x32",), 100: ("UTC",)}),
        case("int8.g32", 16, 4096, 0, {90: ("IMMA",)}),
        case("fp4.g32", 16, 4096, 0, {90: ("IMMA",)}),
        case("fp4.g16", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x32x32",)}),
        case("q4_k", 1, 4096, 0, {80: ("IMMA",), 90: ("IMMA",)}),
        case("q6_k", 16, 28672, 1, {90: ("IGMMA.64x16x32",)}),
        case("q6_k", 512, 28672, 1, {100: ("UTC",)}),
        case("iq4_xs", 64, 4096, 0, {90: ("IMMA",)}),
        case("iq2_s", 1, 28672, 1, {90: ("IGMMA.64x16x32",)}),
        # spills outside of the loop
        case("q5_k", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x32x32",)}, max_spills=8),
        case("q5_k", 512, 28672, 1, {100: ("UTC",)}),
        case("q2_k", 512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",)}),
    ]
