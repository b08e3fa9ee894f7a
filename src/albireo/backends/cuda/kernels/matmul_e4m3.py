"""matmul_e4m3: out = epilogue(x @ weight^T) of e4m3 on both sides for many tokens, with matmul_e4m3_smallm's bits.

Arguments, types and epilogue are those of matmul_e4m3_smallm; factors [T]: what a norm divides rows by. Tokens are the
rows of the matrix unit's tile here and weight rows its columns (parts/chain_e4m3.py says why). The parts of a sum that
matmul_e4m3_smallm gives to several programs are chains of their own here, too, each from zero, added in ascending
order; ../matmul_plan.py says where. An element's bits depend on nothing else. Operands come by tensor descriptors (TMA)
where the GPU has it, else by pointers. Outputs that are codes need whole groups of 128 in a tile: 256 rows of gate and
up, 128 of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.chip import Chip, chip_of
from albireo.backends.cuda.kernels.parts.arriving import is_last_of, set_back
from albireo.backends.cuda.kernels.parts.chain_e4m3 import GROUP, HALF, chain_of_many
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.linear_cases import e4m3_pointer_types
from albireo.backends.cuda.kernels.parts.row_squares import parts_arguments
from albireo.backends.cuda.kernels.parts.sum_space import keep, piece, programs_and_space
from albireo.backends.cuda.kernels.parts.tiles import place
from albireo.backends.cuda.matmul_plan import MEMORY, REGISTERS, SPLIT, Plan, e4m3_plan_for
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import num_parts, part_length
from albireo.backends.cuda.tokens import e4m3_rows

_GROUP, _HALF = tl.constexpr(GROUP), tl.constexpr(HALF)
_REGISTERS, _MEMORY, _SPLIT = tl.constexpr(REGISTERS), tl.constexpr(MEMORY), tl.constexpr(SPLIT)
#: Sums that are ended at once where they waited in memory: 16 a thread.
_ENDED = tl.constexpr(4096)
#: Weight rows of a piece of those.
_KEPT = tl.constexpr(64)


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_e4m3_kernel(
    x,
    x_scales,
    weight,
    scale,
    factors,
    out,
    bias,
    residual,
    gain,
    scaled,
    squares,
    space,
    counters,
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
    scaled_stride,
    squares_stride,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    PARTS: tl.constexpr,
    MODE: tl.constexpr,
    GROUPED: tl.constexpr,
    EVEN_ROWS: tl.constexpr,
    TMA: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
):
    SIZE: tl.constexpr = ROWS * TOKENS
    COUNT: tl.constexpr = PARTS if MODE == _SPLIT else 1  # programs of a tile
    PIECES: tl.constexpr = 1 if ACT != 0 else max(1, ROWS // _HALF)
    WAITING: tl.constexpr = min(TOKENS, _ENDED // ROWS)
    tiles, slabs = tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS)
    part = tl.program_id(0) % COUNT
    at_k = tl.arange(0, _GROUP)
    own = space + tl.program_id(0) * SIZE
    first_turn = tl.program_id(0) // COUNT
    end_of_turns = tiles * slabs if MODE == _MEMORY else first_turn + 1
    for turn in range(first_turn, end_of_turns, tl.num_programs(0) if MODE == _MEMORY else 1):
        tile, slab = place(turn, tiles, slabs)
        # Rows and tokens that are not there are copies of the last, or zeros: read without a mask, never kept.
        token = tl.minimum(slab * TOKENS + tl.arange(0, TOKENS), num_tokens - 1)
        if TMA:
            weight_at, x_at = weight, x
        else:
            row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
            weight_at = weight + row.to(tl.int64)[None, :] * weight_stride + at_k[:, None]
            x_at = x + token.to(tl.int64)[:, None] * x_stride + at_k[None, :]
        x_scale_at = x_scales + token.to(tl.int64) * x_scales_stride
        start = part * part_k
        sums = chain_of_many(
            x_at, weight_at, start, tl.minimum(start + part_k, k), k, scale, tile * ROWS, num_rows, x_scale_at,
            GROUPED, EVEN_ROWS, TOKENS, ROWS, slab * TOKENS, TMA,
        )  # fmt: skip
        if PARTS > 1 and MODE != _SPLIT:
            for first in range(part_k, k, part_k):
                if MODE == _MEMORY:
                    keep(own, sums, ROWS // _KEPT, first - part_k)
                of_part = chain_of_many(
                    x_at, weight_at, first, tl.minimum(first + part_k, k), k, scale, tile * ROWS, num_rows, x_scale_at,
                    GROUPED, EVEN_ROWS, TOKENS, ROWS, slab * TOKENS, TMA,
                )  # fmt: skip
                sums = of_part if MODE == _MEMORY else sums + of_part
        is_last = True
        if MODE == _MEMORY:
            keep(own, sums, ROWS // _KEPT, k - part_k)
            tl.debug_barrier()
        elif MODE == _SPLIT:
            own = space + turn * COUNT * SIZE
            keep(own + part * SIZE, sums, ROWS // _KEPT)
            is_last = is_last_of(counters + turn, COUNT)
        if is_last:
            if MODE == _SPLIT:
                set_back(counters + turn)
            if MODE == _REGISTERS:
                for i in tl.static_range(PIECES):
                    _finish(
                        piece(sums, i, PIECES), slab * TOKENS, tile * ROWS + i * (ROWS // PIECES), scale, num_rows,
                        factors, num_tokens, n, out, out_stride, bias, residual, residual_stride, ACT, HAS_BIAS,
                        HAS_RESIDUAL, GROUPED, gain, scaled, scaled_stride, squares, squares_stride,
                    )  # fmt: skip
            else:
                row = tl.arange(0, ROWS)
                at = (row // _KEPT * (TOKENS * _KEPT) + row % _KEPT)[None, :] + tl.arange(0, WAITING)[:, None] * _KEPT
                for first in tl.range(0, tl.minimum(TOKENS, num_tokens - slab * TOKENS), WAITING, num_stages=1):
                    some = tl.load(own + first * _KEPT + at, cache_modifier=".cg")
                    if MODE == _SPLIT:
                        for other in range(1, tl.cdiv(k, part_k)):
                            some += tl.load(own + other * SIZE + first * _KEPT + at, cache_modifier=".cg")
                    _finish(
                        some, slab * TOKENS + first, tile * ROWS, scale, num_rows, factors, num_tokens, n, out,
                        out_stride, bias, residual, residual_stride, ACT, HAS_BIAS, HAS_RESIDUAL, GROUPED, gain, scaled,
                        scaled_stride, squares, squares_stride,
                    )  # fmt: skip


@triton.jit
def _finish(
    sums, first_token, first_row, scale, num_rows, factors, num_tokens, n, out, out_stride, bias, residual,
    residual_stride,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, GROUPED: tl.constexpr,
    gain, scaled, scaled_stride, squares, squares_stride,
):  # fmt: skip
    if not GROUPED:
        sums *= tl.load(scale + tl.minimum(first_row + tl.arange(0, sums.shape[1]), num_rows - 1))[None, :]
    if factors is not None:
        sums *= tl.load(factors + tl.minimum(first_token + tl.arange(0, sums.shape[0]), num_tokens - 1))[:, None]
    finish(
        sums, first_token, first_row, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def matmul_e4m3(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    factors: torch.Tensor | None = None,
    plan: Plan | None = None,
    workspace: torch.Tensor | None = None,
) -> None:
    """Any number of rows. x: rows of e4m3. plan: for tests and benchmarks; by default e4m3_plan_for(). factors,
    workspace: see matmul.py.
    """
    assert weight.scale is not None
    rows, codes, dtype = weight.rows, weight.codes, weight.dtype
    x, x_scales = e4m3_rows(x, weight.cols)
    k = codes.shape[1]
    parts_wanted, chip = num_parts(rows, weight.cols, dtype), chip_of(x.device)
    part_k = part_length(weight.cols, parts_wanted)
    parts = triton.cdiv(k, part_k)  # the last of them may have nothing left
    plan = plan or e4m3_plan_for(len(x), rows, weight.cols, dtype, end.act > 0, workspace is not None, chip)
    tile, mode = plan.tile, plan.mode if parts > 1 else REGISTERS
    count = triton.cdiv(rows, tile.rows) * triton.cdiv(len(x), tile.tokens)
    programs, counters, space = programs_and_space(tile, mode, count, parts, chip, workspace, end.out)
    of_rows = [min(tile.rows, HALF), GROUP]
    matmul_e4m3_kernel[(programs,)](
        x=TensorDescriptor(x, [len(x), k], [x.stride(0), 1], [tile.tokens, GROUP]) if chip.has_tma else x,
        x_scales=x_scales,
        weight=TensorDescriptor(codes, list(codes.shape), [codes.stride(0), 1], of_rows) if chip.has_tma else codes,
        scale=weight.scale,
        factors=factors,
        space=space,
        counters=counters,
        num_tokens=len(x),
        k=k,
        num_rows=rows,
        weight_stride=codes.stride(0),
        x_stride=x.stride(0),
        x_scales_stride=x_scales.stride(0),
        part_k=part_k,
        **end.arguments(),
        **parts_arguments(end.parts_out),
        PARTS=parts,
        MODE=mode,
        GROUPED=dtype == "fp8.g128",
        EVEN_ROWS=rows % tile.rows == 0,
        TMA=chip.has_tma,
        TOKENS=tile.tokens,
        ROWS=tile.rows,
        num_warps=tile.warps,
        num_stages=tile.stages,
        enable_fp_fusion=False,
    )


_NUMBERS = ("num_tokens", "n", "k", "num_rows", "weight_stride", "x_stride", "x_scales_stride", "out_stride")
_MORE_NUMBERS = ("residual_stride", "part_k", "scaled_stride", "squares_stride")


def aot_cases() -> list[AotCase]:
    def case(
        dtype: str, tokens: int, shape: tuple[int, int], act: int, words: Mapping[int, tuple[str, ...]], levels: int = 6
    ) -> AotCase:
        """As in production: gate and up to codes, what leaves a norm in codes, and q, k and v (no levels of out). The
        plan is that of the first of the GPUs that words are of."""
        (rows, k), chip = shape, Chip(132, next(iter(words)))
        plan = e4m3_plan_for(tokens, rows, k, dtype, act > 0, True, chip)
        tile = plan.tile
        pointers = e4m3_pointer_types(act, levels) | {"space": "*fp32"}
        if act or not levels:
            pointers["factors"] = "*fp32"
        aligned = (*pointers, *_NUMBERS[1:], "residual_stride", "part_k", "scaled_stride")
        if chip.has_tma:
            aligned = tuple(name for name in aligned if name not in ("x", "weight"))
            sizes = {"x": tile.tokens, "weight": min(tile.rows, HALF)}
            pointers |= {name: f"tensordesc<fp8e4nv[{size}, {GROUP}]>" for name, size in sizes.items()}
        constants: dict[str, Any] = {"ACT": act, "HAS_BIAS": True, "HAS_RESIDUAL": not act, "TMA": chip.has_tma}
        constants |= {"PARTS": num_parts(rows, k, dtype), "MODE": plan.mode, "GROUPED": dtype == "fp8.g128"}
        constants |= {"TOKENS": tile.tokens, "ROWS": tile.rows, "EVEN_ROWS": rows % tile.rows == 0}
        constants |= {name: None for name in ("factors", "gain", "scaled", "squares") if name not in pointers}
        return AotCase(
            f"matmul_e4m3.{dtype}.{tokens}x{rows}x{k}",
            matmul_e4m3_kernel,
            pointers | dict.fromkeys((*_NUMBERS, *_MORE_NUMBERS), "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=aligned,
            max_spills=2 if plan.mode == MEMORY else 0,  # outside the loops of products
            max_shared=(227 if chip.has_tma else 99) << 10,
            words={at: (*some, "UTMALDG") if chip.has_tma else some for at, some in words.items()},
            architectures=tuple(words),
        )

    gate_up, down, o, qkv = (28672, 4096), (4096, 14336), (4096, 4096), (6144, 4096)
    hopper, ada = {90: ("QGMMA.64x128x32",)}, {89: ("QMMA",), 120: ("QMMA",)}
    both = hopper | {100: ("UTCQMMA",)}
    return [
        case("fp8", 2048, gate_up, 1, hopper),
        case("fp8", 2048, gate_up, 1, {100: ("UTCQMMA",)}),
        case("fp8", 2048, down, 0, hopper),
        case("fp8", 256, o, 0, both),
        case("fp8.g128", 2048, gate_up, 1, hopper),
        case("fp8.g128", 100, qkv, 0, hopper, levels=0),
        case("fp8", 2048, (12288, 2048), 1, {90: ("QGMMA",)}),
        case("fp8", 2048, gate_up, 1, ada),
        case("fp8.g128", 2048, o, 0, ada),
    ]
