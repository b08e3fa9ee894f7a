"""moe_grouped_matmul: out[p] = epilogue(x[row of p] @ weight[expert of p]^T) of the pairs p of an ExpertList.

x: [T, K], which pair p reads at p // k, or [T * k, K]; of the types that kernels/matmul_smallm.py takes, int8 codes
(../tokens.py) beside int8 weights, or codes of rows of e4m3 beside e4m3 weights. Norms inside linears: see
parts/row_squares.py. weight: a DeviceMatrix [E * N, K], an expert's rows behind those of the one before. out: [T * k,
n] float32, bfloat16 or float16. Rows contiguous inside. bias: float32,
one a row of weight, or None. Epilogue: bias, an activation or none.

A tile is some rows of an expert's matrix by up to TOKENS of its pairs, whose rows of x are gathered. Few pairs: tiles
of 64 weight rows, as wide as an expert's pairs are many, so that weights of experts that were chosen are read once, and
no others. Many: tiles of 128 by 128, weights by descriptors. How many tiles there are stands in the list; the grid is
of as many as there can be, or fewer, which take turns. An element's sum is that of a linear with the expert's matrix
alone (parts/chain.py or chain_e4m3.py, the same parts of k): its bits depend on nothing else. Parts have programs of
their own, the last of which adds them, where tiles are few. Rows of out whose pairs are in no list are not written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from albireo.backends.cuda import expert_plan
from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.expert_list import ITEM_FIELDS, ExpertList, most_items, tile_width
from albireo.backends.cuda.expert_plan import ExpertPlan
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.arriving import is_last_of, set_back
from albireo.backends.cuda.kernels.parts.chain import CHANNELS, GROUPS, MICROSCALED, UNSCALED, chain, times_channels
from albireo.backends.cuda.kernels.parts.chain_e4m3 import chain_of_few, chain_of_many
from albireo.backends.cuda.kernels.parts.epilogue import finish
from albireo.backends.cuda.kernels.parts.linear_cases import pointer_types
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares, row_factor, squares_arguments
from albireo.backends.cuda.kernels.parts.sum_space import keep, kept, piece, pieces_of
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES, group_of, operands, zeros_of
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.sum_parts import TILE_ROWS, num_parts, part_length
from albireo.backends.cuda.workspace import counters_and_parts
from albireo.errors import InvariantError

_CHANNELS, _GROUPS, _ITEM = tl.constexpr(CHANNELS), tl.constexpr(GROUPS), tl.constexpr(ITEM_FIELDS)
_MICROSCALED = tl.constexpr(MICROSCALED)
_FEW_ROWS, _PLANE = tl.constexpr(TILE_ROWS), tl.constexpr(PLANE)


@triton.jit
def moe_grouped_matmul_kernel(
    x,
    weight,
    scale,
    zero,
    x_scales,
    factors,
    bias,
    out,
    pairs,
    items,
    space,
    counters,
    row_squares,
    n,
    k,
    num_rows,
    expert_rows,
    weight_stride,
    x_stride,
    out_stride,
    part_k,
    x_scales_stride,
    factors_stride,
    pairs_stride,
    row_squares_stride,
    num_row_squares,
    norm_width,
    norm_eps,
    PAIRS_OF_ROW: tl.constexpr,
    ACT: tl.constexpr,
    PARTS: tl.constexpr,
    SPLIT: tl.constexpr,
    SCALED: tl.constexpr,
    NIBBLE_GROUP: tl.constexpr,
    NORM_LEVELS: tl.constexpr,
    TMA: tl.constexpr,
    EVEN_K: tl.constexpr,
    EVEN_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    SIZE: tl.constexpr = ROWS * TOKENS
    COUNT: tl.constexpr = PARTS if SPLIT else 1  # programs of a tile
    E4M3: tl.constexpr = x.dtype.element_ty == tl.float8e4nv
    PIECES: tl.constexpr = 1 if E4M3 else pieces_of(TOKENS * ROWS // 128, ACT and PARTS == 1)
    WIDTH: tl.constexpr = TOKENS // PIECES
    ELEMENT: tl.constexpr = weight.dtype if TMA else weight.dtype.element_ty
    at_k = tl.arange(0, _PLANE if tl.int32 == ELEMENT else BLOCK_K)
    tiles = tl.cdiv(expert_rows, ROWS)
    for turn in range(tl.program_id(0), tl.load(items) * tiles * COUNT, tl.num_programs(0)):
        part, tile, item = turn % COUNT, turn // COUNT % tiles, items + (1 + turn // COUNT // tiles) * _ITEM
        expert, first_pair, num_pairs = tl.load(item), tl.load(item + 1), tl.load(item + 2)
        listed = pairs + expert.to(tl.int64) * pairs_stride + first_pair
        # Rows that are not there are copies of the last, or the next expert's; of pairs that are not there zeros are
        # read, from nowhere. None of them is kept.
        first_row = expert * expert_rows + tile * ROWS
        row = tl.minimum(first_row + tl.arange(0, ROWS), num_rows - 1)
        is_pair = (tl.arange(0, TOKENS) < num_pairs)[None, :]
        x_row = tl.load(listed + tl.minimum(tl.arange(0, TOKENS), num_pairs - 1)) // PAIRS_OF_ROW
        if E4M3 and ROWS > _FEW_ROWS:  # pairs are rows of the matrix unit's tile
            x_at = x + x_row.to(tl.int64)[:, None] * x_stride + at_k[None, :]
            weight_at = weight if TMA else weight + row.to(tl.int64)[None, :] * weight_stride + at_k[:, None]
        else:
            x_at = x + x_row.to(tl.int64)[None, :] * x_stride + at_k[:, None]
            weight_at = weight if TMA else weight + row.to(tl.int64)[:, None] * weight_stride + at_k[None, :]
        if E4M3:
            x_scale_at = x_scales + x_row.to(tl.int64) * x_scales_stride
            start = part * part_k
            sums = _chain_of_e4m3(
                weight_at, x_at, is_pair, start, tl.minimum(start + part_k, k), k, scale, row, first_row, num_rows,
                x_scale_at, SCALED == _GROUPS, EVEN_ROWS, ROWS, TOKENS, TMA,
            )  # fmt: skip
            if PARTS > 1 and not SPLIT:
                for first in range(part_k, k, part_k):
                    sums += _chain_of_e4m3(
                        weight_at, x_at, is_pair, first, tl.minimum(first + part_k, k), k, scale, row, first_row,
                        num_rows, x_scale_at, SCALED == _GROUPS, EVEN_ROWS, ROWS, TOKENS, TMA,
                    )  # fmt: skip
        elif x.dtype.element_ty == tl.int8:
            sums = _chain_of_codes(weight_at, x_at, at_k, is_pair, k, EVEN_K, ROWS, TOKENS, BLOCK_K)
        else:
            start = part * part_k
            sums = chain(
                weight_at, x_at, at_k, is_pair, start, tl.minimum(start + part_k, k), k, scale, zero, row, num_rows,
                SCALED, NIBBLE_GROUP, EVEN_K, ROWS, TOKENS, BLOCK_K, first_row, 0, TMA, ROWS > _FEW_ROWS, True,
            )  # fmt: skip
            if PARTS > 1 and not SPLIT:
                for first in range(part_k, k, part_k):
                    sums += chain(
                        weight_at, x_at, at_k, is_pair, first, tl.minimum(first + part_k, k), k, scale, zero, row,
                        num_rows, SCALED, NIBBLE_GROUP, EVEN_K, ROWS, TOKENS, BLOCK_K, first_row, 0, TMA,
                        ROWS > _FEW_ROWS, True,
                    )  # fmt: skip
        is_last = True
        if COUNT > 1:
            own = space + (turn - part) * SIZE
            keep(own + part * SIZE, sums, PIECES)
            is_last = is_last_of(counters + turn // COUNT, COUNT)
        if is_last:
            if COUNT > 1:
                set_back(counters + turn // COUNT)
            for i in tl.static_range(PIECES):
                if COUNT > 1:
                    some = kept(own + i * (ROWS * WIDTH), ROWS, WIDTH)
                    for other in tl.static_range(1, COUNT):
                        some += kept(own + other * SIZE + i * (ROWS * WIDTH), ROWS, WIDTH)
                else:
                    some = piece(sums, i, PIECES)
                place = i * WIDTH + tl.arange(0, WIDTH)
                pair = tl.load(listed + tl.minimum(place, num_pairs - 1))
                some = times_channels(some, scale, row, SCALED)
                if factors is not None:
                    some *= tl.load(factors + (pair // PAIRS_OF_ROW).to(tl.int64) * factors_stride)[None, :]
                if row_squares is not None:
                    some *= row_factor(
                        row_squares, pair // PAIRS_OF_ROW, row_squares_stride, num_row_squares, norm_eps, norm_width,
                        NORM_LEVELS,
                    )[None, :]  # fmt: skip
                own_bias = out if bias is None else bias + expert.to(tl.int64) * expert_rows
                finish(
                    tl.trans(some), i * WIDTH, tile * ROWS, num_pairs, n, out, out_stride, own_bias, out, 0, ACT,
                    bias is not None, False, out_row=pair,
                )  # fmt: skip


@triton.jit
def _chain_of_e4m3(
    weight_at, x_at, is_pair, first, end, k, scale, row, first_row, num_rows, x_scale_at,
    GROUPED: tl.constexpr, EVEN_ROWS: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """[ROWS, TOKENS]: of many pairs as a view of what has them as rows."""
    if ROWS > _FEW_ROWS:
        return tl.trans(chain_of_many(
            x_at, weight_at, first, end, k, scale, first_row, num_rows, x_scale_at, GROUPED, EVEN_ROWS, TOKENS, ROWS, 0,
            TMA, True,
        ))  # fmt: skip
    else:
        return chain_of_few(
            weight_at, x_at, is_pair, first, end, k, scale, row, num_rows, x_scale_at, GROUPED, ROWS, TOKENS,
        )  # fmt: skip


@triton.jit
def _chain_of_codes(
    weight_at, x_at, at_k, is_pair, k,
    EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """8 bits on both sides: exact, so there is one part."""
    acc = tl.zeros((ROWS, TOKENS), tl.int32)
    for start in range(0, k, BLOCK_K):
        if EVEN_K:
            a = tl.load(weight_at + start)
            b = tl.load(x_at + start, mask=is_pair, other=0)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0)
            b = tl.load(x_at + start, mask=is_pair & (at_k < k - start)[:, None], other=0)
        acc = mma(a, b, acc)
    return acc.to(tl.float32)


def moe_grouped_matmul(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    n: int,
    lists: ExpertList,
    act: int = 0,
    x_scales: torch.Tensor | None = None,
    factors: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    plan: ExpertPlan | None = None,
    programs: int | None = None,
    squares: RowSquares | None = None,
    bias: torch.Tensor | None = None,
) -> None:
    """act: epilogue.ACTS. x_scales: [rows of x, groups] of rows of e4m3. factors: [rows of x], scales of int8 codes, or
    what a norm divides rows by; squares: of x's rows, which are divided. plan, programs: for tests and benchmarks.

    workspace: uint8, of expert_linear.workspace_size(), zeroed once; shared with linears.
    """
    dtype, k, rows = weight.dtype, weight.cols, weight.rows // lists.num_experts
    codes, scaled = (weight.codes, CHANNELS) if x.dtype == torch.int8 else operands(weight)
    zeros = zeros_of(weight)
    is_e4m3 = x.dtype == torch.float8_e4m3fn
    if is_e4m3:
        codes = weight.codes
    num_tokens = len(out) // lists.top_k
    width, most = lists.width(num_tokens), lists.most_items(num_tokens)
    plan = plan or expert_plan.plan_for(num_tokens, width, most, rows, k, dtype, is_e4m3, chip_of(x.device))
    if plan.tile.tokens < width:
        raise InvariantError(f"a list of tiles of {width} pairs is read by tiles of {plan.tile.tokens}")
    tile, part_k = plan.tile, part_length(k, 1 if x.dtype == torch.int8 else num_parts(rows, k, dtype))
    if is_e4m3:
        k = codes.shape[1]
    # the last of num_parts() may have nothing left, and a chain by TMA is told that it has something (tl.assume)
    parts = triton.cdiv(k, part_k)
    tiles = most * triton.cdiv(rows, tile.rows)
    count = parts if plan.is_split else 1
    space, counters = out, out
    if count > 1:
        counters, space = counters_and_parts(workspace, count * tiles * tile.rows * tile.tokens)
    by_tma = plan.by_tma and codes.stride(0) * codes.element_size() % 16 == 0 and codes.data_ptr() % 16 == 0
    block = [tile.rows, PLANE if codes.dtype == torch.int32 else tile.k]
    programs = min(tiles * count, programs or expert_plan.PROGRAMS or tiles * count)
    moe_grouped_matmul_kernel[(programs,)](
        x=x,
        weight=TensorDescriptor(codes, list(codes.shape), [codes.stride(0), 1], block) if by_tma else codes,
        scale=out if weight.scale is None else weight.scale,
        zero=out if zeros is None else zeros,
        x_scales=x_scales,
        factors=factors,
        bias=bias,
        out=out,
        pairs=lists.pairs,
        items=lists.items,
        space=space,
        counters=counters,
        n=n,
        k=k,
        num_rows=weight.rows,
        expert_rows=rows,
        weight_stride=codes.stride(0),
        x_stride=x.stride(0),
        out_stride=out.stride(0),
        part_k=part_k,
        x_scales_stride=0 if x_scales is None else x_scales.stride(0),
        factors_stride=0 if factors is None else factors.stride(0),
        pairs_stride=lists.pairs.stride(0),
        **squares_arguments(squares),
        PAIRS_OF_ROW=len(out) // len(x),
        ACT=act,
        PARTS=parts,
        SPLIT=plan.is_split,
        SCALED=scaled,
        NIBBLE_GROUP=group_of(dtype),
        TMA=by_tma,
        EVEN_K=k % tile.k == 0,
        EVEN_ROWS=rows % tile.rows == 0,
        ROWS=tile.rows,
        TOKENS=tile.tokens,
        BLOCK_K=tile.k,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=dtype == "float32",
    )


_NUMBERS = ("n", "k", "num_rows", "expert_rows", "weight_stride", "x_stride", "out_stride", "part_k")
_OTHERS = ("x_scales_stride", "factors_stride", "pairs_stride", "row_squares_stride", "num_row_squares", "norm_width")


def aot_cases() -> list[AotCase]:
    """Shapes of Qwen3-30B-A3B: 128 experts, 8 of them for a token."""

    def case(
        dtype: str,
        num_tokens: int,
        shape: tuple[int, int],
        act: int,
        words: dict[int, tuple[str, ...]],
        max_registers: int = 255,
        is_e4m3: bool = False,
        levels: int = 0,
        max_spills: int = 0,
        has_bias: bool = False,
    ) -> AotCase:
        """The plan is that of the first of the GPUs that words are of."""
        (rows, k), chip = shape, Chip(132, next(iter(words)))
        width = min(tile_width(num_tokens, 128, 8), expert_plan.widest(dtype, chip))
        most = most_items(num_tokens, 128, 8, width)
        plan = expert_plan.plan_for(num_tokens, width, most, rows, k, dtype, is_e4m3, chip)
        tile, is_int8 = plan.tile, dtype == "int8"
        pointers = pointer_types(dtype, act, levels)
        pointers |= dict.fromkeys(("pairs", "items", "counters"), "*i32") | {"space": "*fp32"}
        for name in ("residual",) if has_bias else ("bias", "residual"):
            del pointers[name]
        if is_int8:
            pointers |= {"x": "*i8", "weight": "*i8", "factors": "*fp32"}
        elif is_e4m3:
            pointers |= {"x": "*fp8e4nv", "weight": "*fp8e4nv", "x_scales": "*fp32"}
        aligned = (*pointers, *_NUMBERS)
        if plan.by_tma:
            aligned = tuple(name for name in aligned if name != "weight")
            block = f"{tile.rows}, {PLANE if pointers['weight'] == '*i32' else tile.k}"
            pointers["weight"] = f"tensordesc<{pointers['weight'][1:]}[{block}]>"
        constants: dict[str, Any] = {"PAIRS_OF_ROW": 8 if act else 1, "ACT": act, "SPLIT": plan.is_split}
        constants |= {"PARTS": 1 if is_int8 else num_parts(rows, k, dtype), "TMA": plan.by_tma, "EVEN_K": True}
        constants |= {"SCALED": CHANNELS if is_int8 else SCALES.get(dtype, UNSCALED), "NIBBLE_GROUP": group_of(dtype)}
        constants |= {"NORM_LEVELS": levels, "EVEN_ROWS": rows % tile.rows == 0}
        constants |= {name: None for name in ("x_scales", "factors", "bias", "row_squares") if name not in pointers}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k}
        kinds = f"{'.e4m3' * is_e4m3}{'.norms' * bool(levels)}{'.bias' * has_bias}"
        return AotCase(
            f"moe_grouped_matmul.{dtype}{kinds}.{num_tokens}x{rows}x{k}",
            moe_grouped_matmul_kernel,
            pointers | dict.fromkeys((*_NUMBERS, *_OTHERS), "i32") | {"norm_eps": "fp32"},
            constants,
            tile.warps,
            tile.stages,
            aligned=aligned,
            max_registers=max_registers,
            max_spills=max_spills,
            max_shared=(227 if plan.by_tma else 160) << 10,
            words={at: (*some, "UTMALDG") if plan.by_tma else some for at, some in words.items()},
            architectures=tuple(words),
            fp_fusion=dtype == "float32",
        )

    gate_up, down, loads = (1536, 2048), (2048, 768), "LDGSTS.E.BYPASS.128"
    return [
        case("bfloat16", 1, gate_up, 1, {80: ("HMMA",), 90: ("MMA.", loads), 100: (loads,)}, 128, levels=5),
        case("bfloat16", 64, down, 0, {90: ("MMA.", loads)}, 96),
        case("bfloat16", 64, gate_up, 6, {90: ("MMA.", loads)}, 128, has_bias=True),
        case("bfloat16", 2048, gate_up, 1, {90: ("HGMMA.64x128x16",), 100: ("UTCHMMA",)}),
        case("bfloat16", 2048, down, 0, {80: ("HMMA",)}),
        case("float32", 16, down, 0, {90: ("FFMA",)}),
        case("fp8", 64, gate_up, 1, {90: ("MMA.", loads)}, 128),
        case("fp8", 64, gate_up, 1, {90: ("QGMMA.64x16x32",), 100: ("UTCQMMA",)}, 128, is_e4m3=True),
        # spills outside of the loops of products: sums of the parts before, scales of 128 weight rows
        case("fp8", 2048, gate_up, 1, {90: ("QGMMA.64x128x32", loads)}, is_e4m3=True, max_spills=8),
        case("fp8.g128", 2048, down, 0, {90: ("QGMMA.64x128x32",)}, is_e4m3=True, max_spills=4),
        case("int8", 64, gate_up, 1, {90: ("MMA",)}, 128),
        case("int8", 2048, down, 0, {90: ("IGMMA",)}),
        case("int4.g128", 64, gate_up, 1, {90: ("MMA.", loads)}),
        case("int4.g128", 2048, gate_up, 1, {90: ("HGMMA.64x64x16",)}),
        case("int4.g32", 2048, down, 0, {90: ("HGMMA.64x32x16",)}),
        case("fp4.g32", 64, gate_up, 6, {90: ("MMA.", loads)}, has_bias=True),
        case("fp4.g32", 2048, down, 0, {90: ("HGMMA.64x64x16",)}),
    ]
