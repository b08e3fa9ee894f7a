"""matmul_int8: out = epilogue(x @ weight^T) of 8-bit codes on both sides, a scale a token and one an output channel.

x: token rows (../tokens.py) of K codes, T of them; weight: [N, K] int8, K at most 65536; scale: [1, N] float32; out:
[T, n] float32, bfloat16 or float16, rows contiguous inside. Epilogue: see parts/epilogue.py.

The sum of products is exact in 32 bits, so tiles are chosen for speed alone; then float(sum) * scale * token's scale,
as the native kernels have it: the same bits as theirs, before an activation. Padding rows are computed as any others.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, FEW_TOKENS, Tile, place, tokens_of
from albireo.backends.cuda.tokens import token_rows


def tile_for(num_tokens: int, rows: int, k: int, act: int) -> Tile:
    """Few tokens: so many weight rows that there are enough tiles, and gate rows with their up rows."""
    if num_tokens > FEW_TOKENS:
        return Tile(128, 128, 128, 3, 8)
    tokens = tokens_of(num_tokens)
    step = 256 if k % 256 == 0 else 128
    if act or rows >= 64 * BUSY_TILES:
        return Tile(64, tokens, step, 4 if tokens <= 16 else 3)
    # programs are as many as multiprocessors, so each has its bytes on the way alone
    return Tile(32, tokens, step, {8: 9, 16: 8, 32: 6, 64: 4}[tokens])


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_int8_kernel(
    x,
    floats,
    weight,
    scale,
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
    out_stride,
    residual_stride,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    EVEN_K: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile, slab = place(tl.program_id(0), tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS))
    # Rows and tokens that are not there are copies of the last: read without a mask, never kept.
    row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
    token = tl.minimum(slab * TOKENS + tl.arange(0, TOKENS), num_tokens - 1).to(tl.int64)
    at_k = tl.arange(0, BLOCK_K)
    weight_at = weight + row.to(tl.int64)[:, None] * k + at_k[None, :]
    x_at = x + token[None, :] * x_stride + at_k[:, None]
    acc = tl.zeros((ROWS, TOKENS), tl.int32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            a = tl.load(weight_at + start)
            b = tl.load(x_at + start)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0)
            b = tl.load(x_at + start, mask=(at_k < k - start)[:, None], other=0)
        acc = mma(a, b, acc)
    sums = acc.to(tl.float32) * tl.load(scale + row)[:, None]
    sums *= tl.load(floats + token * floats_stride + first_float)[None, :]
    finish(
        tl.trans(sums), slab * TOKENS, tile * ROWS, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL,
    )  # fmt: skip


def matmul_int8(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    end: Finish,
    tile: Tile | None = None,
) -> None:
    """tile: for tests; by default tile_for()."""
    rows, k = weight.shape
    tile = tile or tile_for(len(x), rows, k, end.act)
    tokens = token_rows(x, k)
    grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(len(x), tile.tokens),)
    matmul_int8_kernel[grid](
        x=tokens.codes,
        floats=tokens.floats,
        weight=weight,
        scale=scale,
        num_tokens=len(x),
        k=k,
        num_rows=rows,
        x_stride=tokens.codes.stride(0),
        floats_stride=tokens.floats.stride(0),
        first_float=tokens.first,
        **end.arguments(),
        EVEN_K=k % tile.k == 0,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=False,
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "x_stride", "floats_stride", "first_float", "out_stride")


def aot_cases() -> list[AotCase]:
    def case(num_tokens: int, rows: int, act: int, words: Mapping[int, tuple[str, ...]]) -> AotCase:
        tile = tile_for(num_tokens, rows, 4096, act)
        pointers = {"x": "*i8", "floats": "*fp32", "weight": "*i8", "scale": "*fp32"}
        pointers |= {"out": "*bf16" if act else "*fp32", "bias": "*fp32", "residual": "*fp32"}
        constants = {"ACT": act, "HAS_BIAS": True, "HAS_RESIDUAL": not act, "EVEN_K": True}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k}
        return AotCase(
            f"matmul_int8.{tile.rows}x{tile.tokens}",
            matmul_int8_kernel,
            pointers | dict.fromkeys((*_NUMBERS, "residual_stride"), "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS[1:], "residual_stride"),
            words=words,
            architectures=tuple(words),
        )

    # a tile that is IMMA on Hopper is so on the others: one of them is compiled for these, the largest for Blackwell
    return [
        case(1, 4096, 0, {80: ("IMMA",), 90: ("IMMA",)}),
        case(64, 4096, 0, {90: ("IMMA",)}),
        case(16, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",)}),
        case(512, 28672, 1, {80: ("IMMA",), 90: ("IGMMA.64x128x32",), 100: ()}),
    ]
