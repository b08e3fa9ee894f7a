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
from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, mma
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.microscaled import from_gamma, twice_e2m1
from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, FEW_TOKENS, Tile, place, tokens_of
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.tokens import SUM_STEP, token_rows
from albireo.encodings import encoding

_KINDS = {"integer": 0, "affine": 1, "progressive": 2, "microscaled": 3}
_INTEGER, _AFFINE, _PROGRESSIVE, _MICROSCALED = (tl.constexpr(code) for code in _KINDS.values())
_SUM_STEP, _PLANE = tl.constexpr(SUM_STEP), tl.constexpr(PLANE)
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
    at = tl.arange(0, _PLANE if NIBBLES else STEP)
    codes_at = codes + row.to(tl.int64)[:, None] * codes_stride + at[None, :]
    x_at = x + token[None, :] * x_stride + at[:, None]
    token_scale = floats + token * floats_stride + first_float
    total = tl.zeros((ROWS, TOKENS), tl.int32 if KIND == _PROGRESSIVE else tl.float32)
    COUNT: tl.constexpr = STEP // GROUP  # groups of a step
    last_group = tl.cdiv(k, GROUP) - 1
    # numbers of a group are on their way while the group before is computed
    by, less = _of_group(scale, zero, offset, gamma, 0, last_group, num_rows, row, KIND, NIBBLES, GROUP)
    for step in range(0, tl.cdiv(k, STEP)):
        if NIBBLES:  # filled up to whole steps
            code = tl.load(codes_at + step * _PLANE)
        elif EVEN_K:
            code = tl.load(codes_at + step * STEP)
        else:
            code = tl.load(codes_at + step * STEP, mask=(at < k - step * STEP)[None, :], other=0)
        for group in tl.static_range(COUNT):
            first = step * STEP + group * GROUP
            ahead = step * COUNT + group + 1
            next_by, next_less = _of_group(
                scale, zero, offset, gamma, ahead, last_group, num_rows, row, KIND, NIBBLES, GROUP
            )
            sums = tl.zeros((ROWS, TOKENS), tl.int32)
            if NIBBLES and GROUP < _PLANE:  # half a plane; what is not of it counts as zero
                b = _inputs(x_at, at, step * STEP + group * GROUP // _PLANE * _PLANE, k, EVEN_K)
                is_half = (group * GROUP // _PLANE * _PLANE + at) // GROUP == group
                whole = _whole(code, group * GROUP // _PLANE, KIND)
                sums = mma(tl.where(is_half[None, :], whole, 0).to(tl.int8), b, sums)
            elif NIBBLES:
                for plane in tl.static_range(GROUP // _PLANE):
                    b = _inputs(x_at, at, first + plane * _PLANE, k, EVEN_K)
                    sums = mma(_whole(code, group * (GROUP // _PLANE) + plane, KIND), b, sums)
            else:
                b = _inputs(x_at, at, step * STEP, k, EVEN_K)
                of_group = tl.where((at // GROUP == group)[None, :], code, 0).to(tl.int8) if COUNT > 1 else code
                sums = mma(of_group, b, sums)
            total = _add(total, sums, _sum_of_codes(token_scale + 1, first, GROUP, k), by, less, KIND, NIBBLES)
            by, less = next_by, next_less
    result = total
    if KIND == _PROGRESSIVE:
        result = total.to(tl.float32) * tl.load(scale + row)[:, None]
    elif KIND == _MICROSCALED:
        result = total * (tl.load(scale + row) * 0.5)[:, None]
    result *= tl.load(token_scale)[None, :]
    finish(
        tl.trans(result), slab * TOKENS, tile * ROWS, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL,
    )  # fmt: skip


@triton.jit
def _of_group(
    scale, zero, offset, gamma, group, last, num_rows, row,
    KIND: tl.constexpr, NIBBLES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """What a group multiplies by, and what it takes off or adds; of a group behind the last that of the last, whose
    codes are zeros."""
    at = tl.minimum(group, last) * num_rows + row
    if KIND == _PROGRESSIVE:
        by = tl.load(gamma + at)
    elif KIND == _MICROSCALED:
        by = from_gamma(tl.load(gamma + at), GROUP)
    else:
        by = tl.load(scale + at)
    if KIND == _AFFINE:
        less = tl.load(offset + at)
    elif NIBBLES and KIND != _MICROSCALED:
        less = tl.load(zero + at)
    else:
        less = by
    return by, less


@triton.jit
def _add(total, sums, x_sum, by, less, KIND: tl.constexpr, NIBBLES: tl.constexpr):
    """total and what a group adds to it. sums: of products; x_sum: of x's codes; by, less: _of_group()."""
    if KIND == _PROGRESSIVE:
        sums -= less.to(tl.int32)[:, None] * x_sum.to(tl.int32)[None, :]
        total += by.to(tl.int32)[:, None] * sums
    else:
        value = sums.to(tl.float32)
        if KIND == _INTEGER and NIBBLES:
            value = tl.fma(less.to(tl.float32)[:, None], -x_sum[None, :], value)
        total = tl.fma(value, by[:, None], total)
        if KIND == _AFFINE:
            total = tl.fma(less[:, None], x_sum[None, :], total)
    return total


@triton.jit
def _sum_of_codes(sums, first, GROUP: tl.constexpr, k):
    """Of each token the sum of a group's codes; see sum_at() in csrc's tokens.h."""
    before = tl.cdiv(tl.minimum(first, k), _SUM_STEP)
    end = tl.cdiv(tl.minimum(first + GROUP, k), _SUM_STEP)
    return tl.load(sums + end) - tl.load(sums + before)


@triton.jit
def _inputs(x_at, at, first, k, EVEN_K: tl.constexpr):
    if EVEN_K:
        return tl.load(x_at + first)
    return tl.load(x_at + first, mask=(at < k - first)[:, None], other=0)


@triton.jit
def _whole(word, PLANE_AT: tl.constexpr, KIND: tl.constexpr):
    code = _nibble(word, PLANE_AT)
    return twice_e2m1(code) if KIND == _MICROSCALED else code


@triton.jit
def _nibble(word, PLANE_AT: tl.constexpr):
    """Codes of a plane in words, four at a time."""
    if INTERP:
        return ((word >> (4 * PLANE_AT)) & 15).to(tl.int8)
    BYTE: tl.constexpr = PLANE_AT // 2
    # bytes of two words, then of all four
    PICK: tl.constexpr = "0x0040" if BYTE == 0 else "0x0051" if BYTE == 1 else "0x0062" if BYTE == 2 else "0x0073"
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t, u; prmt.b32 t, $1, $2, "
        + PICK
        + "; prmt.b32 u, $3, $4, "
        + PICK
        + "; prmt.b32 t, t, u, 0x5410;"
        + (" shr.b32 t, t, 4;" if PLANE_AT % 2 else "")
        + " and.b32 $0, t, 0x0F0F0F0F; }",
        "=r,r,r,r,r",
        [word],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )


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
        KIND=_KINDS[e.kind],
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
        constants = {"KIND": _KINDS[e.kind], "NIBBLES": e.bits == 4, "GROUP": e.group, "EVEN_K": True, "ACT": act}
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
