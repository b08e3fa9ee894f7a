"""matmul: out = epilogue(x @ weight^T) for many tokens, with the bits of kernels/matmul_smallm.py.

Arguments, types and epilogue are those of matmul_smallm. Weight rows are the rows of the matrix unit's tile here too,
and the parts of a sum that matmul_smallm gives to several programs are chains of their own here, too, each from zero,
added in ascending order; ../matmul_plan.py says where. An element's bits depend on nothing else: neither on the tile,
nor on how operands come. Those whose rows are 16-byte aligned come by tensor descriptors (TMA on Hopper), others by
pointers; codes of words by descriptors of words, and x a plane at a time. Programs take turns where there are more
tiles than multiprocessors and sums wait in memory.
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
from albireo.backends.cuda.kernels.parts.chain import UNSCALED, chain, times_channels, width_of
from albireo.backends.cuda.kernels.parts.epilogue import Finish, finish
from albireo.backends.cuda.kernels.parts.linear_cases import NORM_POINTERS, pointer_types
from albireo.backends.cuda.kernels.parts.row_squares import parts_arguments
from albireo.backends.cuda.kernels.parts.sum_space import keep, kept, piece, pieces_of, programs_and_space
from albireo.backends.cuda.kernels.parts.tiles import Tile, place
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES, group_of, operands, zeros_of
from albireo.backends.cuda.matmul_plan import MEMORY, REGISTERS, SPLIT, Plan, plan_for
from albireo.backends.cuda.matrix import PLANE, DeviceMatrix
from albireo.backends.cuda.sum_parts import num_parts, part_length

_REGISTERS, _MEMORY, _SPLIT = tl.constexpr(REGISTERS), tl.constexpr(MEMORY), tl.constexpr(SPLIT)


@triton.jit(do_not_specialize=["num_tokens"])
def matmul_kernel(
    x,
    weight,
    scale,
    zero,
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
    SCALED: tl.constexpr,
    NIBBLE_GROUP: tl.constexpr,
    TMA: tl.constexpr,
    EVEN_K: tl.constexpr,
    ROWS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    SIZE: tl.constexpr = ROWS * TOKENS
    PIECES: tl.constexpr = pieces_of(TOKENS, ACT and PARTS == 1)
    COUNT: tl.constexpr = PARTS if MODE == _SPLIT else 1  # programs of a tile
    tiles, slabs = tl.cdiv(num_rows, ROWS), tl.cdiv(num_tokens, TOKENS)
    part = tl.program_id(0) % COUNT
    at_k = tl.arange(0, BLOCK_K) if TMA else width_of(weight, BLOCK_K)
    is_token = tl.full((1, TOKENS), True, tl.int1)
    own = space + tl.program_id(0) * SIZE
    first_turn = tl.program_id(0) // COUNT
    end_of_turns = tiles * slabs if MODE == _MEMORY else first_turn + 1
    for turn in range(first_turn, end_of_turns, tl.num_programs(0) if MODE == _MEMORY else 1):
        tile, slab = place(turn, tiles, slabs)
        # Rows and tokens that are not there are copies of the last, or zeros: read without a mask, never kept.
        row = tl.minimum(tile * ROWS + tl.arange(0, ROWS), num_rows - 1)
        if TMA:
            weight_at, x_at = weight, x
        else:
            token = tl.minimum(slab * TOKENS + tl.arange(0, TOKENS), num_tokens - 1)
            weight_at = weight + row.to(tl.int64)[:, None] * weight_stride + at_k[None, :]
            x_at = x + token.to(tl.int64)[None, :] * x_stride + at_k[:, None]
        start = part * part_k
        sums = chain(
            weight_at, x_at, at_k, is_token, start, tl.minimum(start + part_k, k), k, scale, zero, row, num_rows,
            SCALED, NIBBLE_GROUP, EVEN_K, ROWS, TOKENS, BLOCK_K, tile * ROWS, slab * TOKENS, TMA, True,
        )  # fmt: skip
        if PARTS > 1 and MODE != _SPLIT:
            for first in range(part_k, k, part_k):
                if MODE == _MEMORY:
                    keep(own, sums, PIECES, first - part_k)
                of_part = chain(
                    weight_at, x_at, at_k, is_token, first, tl.minimum(first + part_k, k), k, scale, zero, row,
                    num_rows, SCALED, NIBBLE_GROUP, EVEN_K, ROWS, TOKENS, BLOCK_K, tile * ROWS, slab * TOKENS, TMA,
                    True,
                )  # fmt: skip
                sums = of_part if MODE == _MEMORY else sums + of_part
        is_last = True
        if MODE == _MEMORY:
            keep(own, sums, PIECES, k - part_k)
            tl.debug_barrier()
        elif MODE == _SPLIT:
            own = space + turn * COUNT * SIZE
            keep(own + part * SIZE, sums, PIECES)
            is_last = is_last_of(counters + turn, COUNT)
        if is_last:
            if MODE == _SPLIT:
                set_back(counters + turn)
            if MODE == _REGISTERS:
                for i in tl.static_range(PIECES):
                    first_token = slab * TOKENS + i * (TOKENS // PIECES)
                    _finish_piece(
                        piece(sums, i, PIECES), first_token, tile * ROWS, scale, row, factors,
                        num_tokens, n, out, out_stride, bias, residual, residual_stride, ACT, HAS_BIAS, HAS_RESIDUAL,
                        SCALED, gain, scaled, scaled_stride, squares, squares_stride,
                    )  # fmt: skip
            else:
                for first_column in range(0, tl.minimum(TOKENS, num_tokens - slab * TOKENS), TOKENS // PIECES):
                    some = kept(own + first_column * ROWS, ROWS, TOKENS // PIECES)
                    if MODE == _SPLIT:
                        for other in range(1, tl.cdiv(k, part_k)):
                            some += kept(own + other * SIZE + first_column * ROWS, ROWS, TOKENS // PIECES)
                    _finish_piece(
                        some, slab * TOKENS + first_column, tile * ROWS, scale, row, factors,
                        num_tokens, n, out, out_stride, bias, residual, residual_stride, ACT, HAS_BIAS, HAS_RESIDUAL,
                        SCALED, gain, scaled, scaled_stride, squares, squares_stride,
                    )  # fmt: skip


@triton.jit
def _finish_piece(
    sums, first_token, first_row, scale, row, factors, num_tokens, n, out, out_stride, bias, residual, residual_stride,
    ACT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, SCALED: tl.constexpr,
    gain, scaled, scaled_stride, squares, squares_stride,
):  # fmt: skip
    sums = times_channels(sums, scale, row, SCALED)
    if factors is not None:
        sums *= tl.load(factors + tl.minimum(first_token + tl.arange(0, sums.shape[1]), num_tokens - 1))[None, :]
    finish(
        tl.trans(sums), first_token, first_row, num_tokens, n, out, out_stride, bias, residual, residual_stride,
        ACT, HAS_BIAS, HAS_RESIDUAL, gain, scaled, scaled_stride, squares, squares_stride,
    )  # fmt: skip


def _is_aligned(tensor: torch.Tensor) -> bool:
    """As tensor descriptors need it: rows at whole 16 bytes."""
    row_bytes = tensor.stride(0) * tensor.element_size()
    return bool(tensor.data_ptr() % 16 == 0 and row_bytes % 16 == 0 and tensor.stride(1) == 1)


def _width(are_words: bool, tile: Tile) -> int:
    """Columns of a block that is read at once: of words a plane's."""
    return PLANE if are_words else tile.k


def matmul(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    factors: torch.Tensor | None = None,
    plan: Plan | None = None,
    workspace: torch.Tensor | None = None,
    use_tma: bool = True,
) -> None:
    """Any number of rows. plan, use_tma: for tests and benchmarks; by default plan_for().

    factors: [T], what a norm divides rows by. workspace: of linear's workspace_size(); None: the sums of all parts are
    in registers.
    """
    rows, k, dtype = weight.rows, weight.cols, weight.dtype
    (codes, scaled), zeros = operands(weight), zeros_of(weight)
    part_k = part_length(k, num_parts(rows, k, dtype))
    parts = triton.cdiv(k, part_k)  # the last of them may have nothing left
    chip = chip_of(x.device)
    plan = plan or plan_for(len(x), rows, k, dtype, workspace is not None, chip)
    tile, mode = plan.tile, plan.mode if parts > 1 else REGISTERS
    count = triton.cdiv(rows, tile.rows) * triton.cdiv(len(x), tile.tokens)
    programs, counters, space = programs_and_space(tile, mode, count, parts, chip, workspace, end.out)
    by_tma = use_tma and chip.has_tma and dtype != "float32" and _is_aligned(x) and _is_aligned(codes)
    width = _width(codes.dtype == torch.int32, tile)
    block = [tile.rows, width]
    matmul_kernel[(programs,)](
        x=TensorDescriptor(x, [len(x), k], [x.stride(0), 1], [tile.tokens, width]) if by_tma else x,
        weight=TensorDescriptor(codes, list(codes.shape), [codes.stride(0), 1], block) if by_tma else codes,
        scale=end.out if weight.scale is None else weight.scale,
        zero=end.out if zeros is None else zeros,
        factors=factors,
        space=space,
        counters=counters,
        num_tokens=len(x),
        k=k,
        num_rows=rows,
        weight_stride=codes.stride(0),
        x_stride=x.stride(0),
        part_k=part_k,
        **end.arguments(),
        **parts_arguments(end.parts_out),
        PARTS=parts,
        MODE=mode,
        SCALED=scaled,
        NIBBLE_GROUP=group_of(dtype),
        TMA=by_tma,
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
        tokens: int,
        shape: tuple[int, int],
        act: int,
        words: Mapping[int, tuple[str, ...]],
        levels: int = 0,
    ) -> AotCase:
        """The plan is that of the first of the GPUs that words are of."""
        (rows, k), chip = shape, Chip(132, next(iter(words)))
        has_tma = chip.has_tma and dtype != "float32"
        plan = plan_for(tokens, rows, k, dtype, True, chip)
        tile = plan.tile
        pointers = pointer_types(dtype, act, levels) | {"space": "*fp32", "counters": "*i32"}
        pointers.pop("row_squares", None)
        aligned = (*pointers, *_NUMBERS[1:], "scaled_stride")
        if has_tma:
            aligned = tuple(name for name in aligned if name not in ("x", "weight"))
            width = _width(pointers["weight"] == "*i32", tile)
            sizes = {"x": tile.tokens, "weight": tile.rows}
            pointers |= {name: f"tensordesc<{pointers[name][1:]}[{size}, {width}]>" for name, size in sizes.items()}
        constants: dict[str, Any] = {"ACT": act, "HAS_BIAS": True, "HAS_RESIDUAL": not act}
        constants |= {"PARTS": num_parts(rows, k, dtype), "MODE": plan.mode, "TMA": has_tma, "EVEN_K": True}
        constants |= {"SCALED": SCALES.get(dtype, UNSCALED), "NIBBLE_GROUP": group_of(dtype)}
        constants |= {name: None for name in ("factors", *NORM_POINTERS[1:]) if name not in pointers}
        constants |= {"ROWS": tile.rows, "TOKENS": tile.tokens, "BLOCK_K": tile.k}
        return AotCase(
            f"matmul.{dtype}{'.norms' * bool(levels)}.{tokens}x{rows}x{k}",
            matmul_kernel,
            pointers | dict.fromkeys((*_NUMBERS, "scaled_stride", "squares_stride"), "i32"),
            constants,
            tile.warps,
            tile.stages,
            aligned=aligned,
            max_shared=(227 if has_tma else 99 if chip.has_little_shared_memory else 160) << 10,
            words={at: (*some, "UTMALDG") if has_tma else some for at, some in words.items()},
            architectures=tuple(words),
            fp_fusion=dtype == "float32",
        )

    gate_up, down, o = (28672, 4096), (4096, 14336), (4096, 4096)
    wide, half, of_4_bits = ({90: (f"HGMMA.64x{tokens}x16",)} for tokens in (256, 128, 64))
    return [
        case("bfloat16", 2048, gate_up, 1, wide | {100: ("UTCHMMA",)}),
        case("bfloat16", 2048, down, 0, wide, levels=6),
        case("bfloat16", 256, o, 0, wide, levels=6),
        case("bfloat16", 256, o, 0, {80: ("HMMA",)}),
        case("fp8", 2048, down, 0, wide),
        case("fp8", 2048, o, 0, {100: ("UTCHMMA",)}),
        case("fp8.g128", 2048, o, 0, half),
        case("int4.g128", 2048, o, 0, of_4_bits),
        case("int4.g32", 2048, o, 0, {90: ("HGMMA.64x32x16",)}),
        case("int4.g64", 2048, o, 0, {80: ("HMMA",)}),
        case("fp4.g32", 2048, o, 0, of_4_bits),
        case("fp4.g16", 2048, o, 0, of_4_bits),
        case("int4.g128", 2048, gate_up, 1, {100: ("UTCHMMA",)}),
        case("bfloat16", 2048, gate_up, 1, {89: ("HMMA",), 120: ("HMMA",)}),
    ]
