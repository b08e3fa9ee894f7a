"""moe_groups: out[p] = epilogue(x[row of p] @ weight[expert of p]^T) of the pairs p of an ExpertList, of token rows and
weights whose inputs share a scale in groups.

x: token rows (../tokens.py) of K codes, T, which pair p reads at p // k, or T * k of them. weight: a DeviceMatrix
[E * N, K] of the types that matmul_groups.py takes, an expert's rows behind those of the one before. out: [T * k, n]
float32, bfloat16 or float16. Rows contiguous inside. bias: float32, one a row of weight, or None. Epilogue: bias, an
activation or none.

Tiles are as in moe_grouped_matmul.py: some rows of an expert's matrix by up to TOKENS of its pairs, whose rows of x are
gathered; each sum is one part. An element has the bits that matmul_groups gives it with the expert's matrix alone. Rows
of out whose pairs are in no list are not written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda import expert_plan
from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.expert_list import ITEM_FIELDS, ExpertList
from albireo.backends.cuda.group_operands import constants_of, operands_of, pointers_of
from albireo.backends.cuda.kernels.matmul_groups import tile_for
from albireo.backends.cuda.kernels.parts.chain_groups import chain_of_groups
from albireo.backends.cuda.kernels.parts.chain_nests import NESTED_KINDS, chain_of_nests
from albireo.backends.cuda.kernels.parts.epilogue import finish
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.tokens import token_rows
from albireo.encodings import encoding
from albireo.errors import InvariantError

_ITEM = tl.constexpr(ITEM_FIELDS)
_NESTED = tl.constexpr(min(NESTED_KINDS.values()))


@triton.jit
def moe_groups_kernel(
    x,
    floats,
    codes,
    high,
    scale,
    zero,
    offset,
    gamma,
    bias,
    out,
    pairs,
    items,
    n,
    k,
    num_rows,
    expert_rows,
    x_stride,
    floats_stride,
    first_float,
    codes_stride,
    out_stride,
    pairs_stride,
    PAIRS_OF_ROW: tl.constexpr,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    TABLE: tl.constexpr,
    UNIT: tl.constexpr,
    EVEN_K: tl.constexpr,
    ACT: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    STEP: tl.constexpr,
):
    tiles = tl.cdiv(expert_rows, ROWS)
    for turn in range(tl.program_id(0), tl.load(items) * tiles, tl.num_programs(0)):
        tile, item = turn % tiles, items + (1 + turn // tiles) * _ITEM
        expert, first_pair, num_pairs = tl.load(item), tl.load(item + 1), tl.load(item + 2)
        # Rows and pairs that are not there are copies of the last, or the next expert's rows; none of them is kept.
        row = tl.minimum(expert * expert_rows + tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
        listed = pairs + expert.to(tl.int64) * pairs_stride + first_pair
        pair = tl.load(listed + tl.minimum(tl.arange(0, TOKENS), num_pairs - 1))
        token = (pair // PAIRS_OF_ROW).to(tl.int64)
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
        own_bias = out if bias is None else bias + expert.to(tl.int64) * expert_rows
        finish(
            tl.trans(result), 0, tile * ROWS, num_pairs, n, out, out_stride, own_bias, out, 0, ACT, bias is not None,
            False, out_row=pair,
        )  # fmt: skip


def moe_groups(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    n: int,
    lists: ExpertList,
    act: int = 0,
    bias: torch.Tensor | None = None,
    tile: Tile | None = None,
    programs: int | None = None,
) -> None:
    """act: epilogue.ACTS. tile, programs: for tests; by default those of as many tokens, and one a tile."""
    e, rows = encoding(weight.dtype), weight.rows // lists.num_experts
    num_tokens = len(out) // lists.top_k
    width = lists.width(num_tokens)
    tile = tile or tile_for(width, rows, e, act, chip_of(x.device))
    if tile.tokens < width:
        raise InvariantError(f"a list of tiles of {width} pairs is read by tiles of {tile.tokens}")
    tokens = token_rows(x, weight.cols)
    tiles = lists.most_items(num_tokens) * triton.cdiv(rows, tile.rows)
    moe_groups_kernel[(min(tiles, programs or expert_plan.PROGRAMS or tiles),)](
        x=tokens.codes,
        floats=tokens.floats,
        **operands_of(weight, out),
        bias=bias,
        out=out,
        pairs=lists.pairs,
        items=lists.items,
        n=n,
        k=weight.cols,
        num_rows=weight.rows,
        expert_rows=rows,
        x_stride=tokens.codes.stride(0),
        floats_stride=tokens.floats.stride(0),
        first_float=tokens.first,
        out_stride=out.stride(0),
        pairs_stride=lists.pairs.stride(0),
        PAIRS_OF_ROW=len(out) // len(x),
        EVEN_K=weight.cols % tile.k == 0,
        ACT=act,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        STEP=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=False,
    )


_POINTERS = {"x": "*i8", "floats": "*fp32"}
_NUMBERS = ("n", "k", "num_rows", "expert_rows", "x_stride", "floats_stride", "first_float", "codes_stride")
_STRIDES = ("out_stride", "pairs_stride")


def aot_cases() -> list[AotCase]:
    """Shapes of Qwen3-30B-A3B: 128 experts, 8 of them for a token."""

    def case(
        dtype: str, width: int, rows: int, act: int, words: dict[int, tuple[str, ...]], max_spills: int = 0
    ) -> AotCase:
        e = encoding(dtype)
        (tile,) = {tile_for(width, rows, e, act, Chip(132, architecture)) for architecture in words}
        pointers = _POINTERS | pointers_of(e) | {"out": "*bf16" if act else "*fp32"}
        pointers |= dict.fromkeys(("pairs", "items"), "*i32")
        constants: dict[str, Any] = {"PAIRS_OF_ROW": 8 if act else 1, **constants_of(e)}
        constants |= {"EVEN_K": True, "ACT": act, "bias": None}
        return AotCase(
            f"moe_groups.{dtype}.{tile.rows}x{tile.tokens}",
            moe_groups_kernel,
            pointers | dict.fromkeys((*_NUMBERS, *_STRIDES), "i32"),
            constants | {"ROWS": tile.rows, "TOKENS": tile.tokens, "STEP": tile.k},
            tile.warps,
            tile.stages,
            aligned=(*pointers, *_NUMBERS, *_STRIDES),
            max_spills=max_spills,
            words=words,
            architectures=tuple(words),
        )

    return [
        case("int4.g32.affine", 16, 1536, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",), 100: ()}),
        case("int4p.g64", 16, 2048, 0, {90: ("IMMA",)}),
        case("int8.g32", 16, 1536, 1, {90: ("IGMMA.64x16x32",)}),
        case("int4.g128", 128, 1536, 1, {80: ("IMMA",), 90: ("IGMMA.64x64x32",)}),
        case("q4_k", 16, 1536, 1, {80: ("IMMA",), 90: ("IGMMA.64x16x32",)}),
        case("q6_k", 16, 2048, 0, {90: ("IMMA",)}),
        case("iq2_xxs", 64, 1536, 1, {90: ("IGMMA.64x32x32",)}),
        # spills outside of the loop of products: both halves of each plane
        case("fp4.g16", 64, 1536, 1, {90: ("IGMMA",)}, max_spills=16),
    ]
