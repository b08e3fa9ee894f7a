"""matmul: out = epilogue(x @ weight^T) for many tokens, with the bits of kernels/matmul_smallm.py.

Arguments, types and epilogue are those of matmul_smallm. Weight rows are the rows of the matrix unit's tile here too,
and the parts of a sum that matmul_smallm gives to several programs follow each other in one: each a chain of its own
from zero, added in ascending order. Whether Hopper's wgmma gives an element the same bits at every width of a tile is
to be shown on one; were it not so, tile_for() of both kernels would have to give one width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.arithmetic import mma
from albireo.backends.cuda.epilogue import finish
from albireo.backends.cuda.kernels.matmul_smallm import num_parts, part_length
from albireo.backends.cuda.tiles import Tile, place


def tile_for(dtype: str) -> Tile:
    return Tile(64, 64, 32, 3) if dtype == "float32" else Tile(128, 128, 64, 4, 8)


@triton.jit
def matmul_kernel(
    x,
    weight,
    out,
    bias,
    residual,
    num_tokens,
    n,
    k,
    num_rows,
    x_stride,
    out_stride,
    residual_stride,
    part_k,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    PARTS: tl.constexpr,
    EVEN_K: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile, slab = place(tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS))
    row = tile * ROWS + tl.arange(0, ROWS)
    token = slab * TOKENS + tl.arange(0, TOKENS)
    at_k = tl.arange(0, BLOCK_K)
    weight_at = weight + tl.minimum(row, num_rows - 1).to(tl.int64)[:, None] * k + at_k[None, :]
    x_at = x + tl.minimum(token, num_tokens - 1).to(tl.int64)[None, :] * x_stride + at_k[:, None]
    total = _chain(weight_at, x_at, at_k, 0, tl.minimum(part_k, k), k, EVEN_K, ROWS, TOKENS, BLOCK_K)
    if PARTS > 1:
        for first in range(part_k, k, part_k):
            end = tl.minimum(first + part_k, k)
            total += _chain(weight_at, x_at, at_k, first, end, k, EVEN_K, ROWS, TOKENS, BLOCK_K)
    finish(
        tl.trans(total), slab * TOKENS, tile * ROWS, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL,
    )  # fmt: skip


@triton.jit
def _chain(
    weight_at, x_at, at_k, first, end, k,
    EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(first, end, BLOCK_K):
        if EVEN_K:
            a = tl.load(weight_at + start)
            b = tl.load(x_at + start)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0.0)
            b = tl.load(x_at + start, mask=(at_k < k - start)[:, None], other=0.0)
        acc = mma(a, b, acc)
    return acc


def matmul(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    n: int,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    act: int = 0,
    tile: Tile | None = None,
) -> None:
    """Any number of rows. act: epilogue.ACTS. tile: for tests; by default tile_for()."""
    rows, k = weight.shape
    dtype = str(weight.dtype).removeprefix("torch.")
    tile = tile or tile_for(dtype)
    parts = num_parts(rows, k, dtype)
    grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(len(x), tile.tokens),)
    matmul_kernel[grid](
        x,
        weight,
        out,
        out if bias is None else bias,
        out if residual is None else residual,
        len(x),
        n,
        k,
        rows,
        x.stride(0),
        out.stride(0),
        0 if residual is None else residual.stride(0),
        part_length(k, parts),
        ACT=act,
        HAS_BIAS=bias is not None,
        HAS_RESIDUAL=residual is not None,
        PARTS=parts,
        EVEN_K=k % tile.k == 0,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=dtype == "float32",
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "x_stride", "out_stride", "residual_stride", "part_k")


def aot_cases() -> list[AotCase]:
    def case(name: str, dtype: str, parts: int, act: int, words: Mapping[int, tuple[str, ...]]) -> AotCase:
        tile = tile_for({"bf16": "bfloat16", "fp32": "float32"}[dtype])
        pointers = {"x": f"*{dtype}", "weight": f"*{dtype}", "out": "*bf16" if act else "*fp32"}
        pointers |= {"bias": "*fp32", "residual": "*fp32"}
        constants = {"ACT": act, "HAS_BIAS": True, "HAS_RESIDUAL": not act, "PARTS": parts, "EVEN_K": True}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k}
        return AotCase(
            f"matmul.{name}",
            matmul_kernel,
            pointers | dict.fromkeys(_NUMBERS, "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS[1:]),
            max_registers=240,
            words=words,
            fp_fusion=dtype == "fp32",
        )

    units = {80: ("HMMA",), 90: ("HGMMA.64x128x16",), 100: ("UTCHMMA",)}
    return [
        case("bfloat16.parts", "bf16", 4, 0, units),
        case("bfloat16.silu_mul", "bf16", 1, 1, units),
        case("float32", "fp32", 1, 0, {90: ("FFMA",)}),
    ]
