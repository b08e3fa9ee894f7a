"""add_parts: out[t] = the parts of a sum, added as a binary tree [+ bias] [+ residual[t]].

parts: [P, T, any] float32, P 2, 4 or 8, columns contiguous: neighbours are added, then their sums, and so on, so that
whoever adds a half of them first has the same bits. bias: [N] float32; residual: [T, N] float32, which may be out; out:
[T, N] float32, bfloat16 or float16, rows any distance apart. Bias and residual come behind the tree, in this order.
parts_out: what a norm of out's rows is made of, see parts/row_squares.py. A program has a piece of a row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.linear_cases import OF_CODES, OF_NORM
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, parts_arguments, store_parts_of_piece

_BLOCK = 512


@triton.jit
def _pair(parts, stride, first, mask):
    a = tl.load(parts + first * stride, mask=mask, other=0.0)
    return a + tl.load(parts + (first + 1) * stride, mask=mask, other=0.0)


@triton.jit
def add_parts_kernel(
    parts,
    bias,
    residual,
    out,
    gain,
    scaled,
    squares,
    part_stride,
    row_stride,
    residual_stride,
    out_stride,
    cols,
    scaled_stride,
    squares_stride,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    parts += row * row_stride + at
    stride = part_stride.to(tl.int64)
    total = _pair(parts, stride, 0, mask)
    if PARTS > 2:
        total += _pair(parts, stride, 2, mask)
    if PARTS > 4:
        total += _pair(parts, stride, 4, mask) + _pair(parts, stride, 6, mask)
    if bias is not None:
        total += tl.load(bias + at, mask=mask, other=0.0)
    if residual is not None:
        total = tl.load(residual + row * residual_stride + at, mask=mask, other=0.0) + total
    tl.store(out + row * out_stride + at, round_to(total, out.dtype.element_ty), mask=mask)
    if gain is not None:
        store_parts_of_piece(total, cols, gain, scaled, scaled_stride, squares, squares_stride)


def add_parts(
    parts: torch.Tensor,
    out: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    parts_out: RowParts | None = None,
) -> None:
    num_tokens, cols = out.shape
    add_parts_kernel[(num_tokens, triton.cdiv(cols, _BLOCK))](
        parts=parts,
        bias=bias,
        residual=residual,
        out=out,
        part_stride=parts.stride(0),
        row_stride=parts.stride(1),
        residual_stride=0 if residual is None else residual.stride(0),
        out_stride=out.stride(0),
        cols=cols,
        **parts_arguments(parts_out),
        PARTS=len(parts),
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("part_stride", "row_stride", "residual_stride", "out_stride", "cols", "scaled_stride", "squares_stride")

    def case(name: str, parts: int, more: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        pointers = dict.fromkeys(("parts", "bias", "residual", "out"), "*fp32") | more
        return AotCase(
            f"add_parts.{name}",
            add_parts_kernel,
            pointers | dict.fromkeys(numbers, "i32"),
            {"PARTS": parts, "BLOCK": _BLOCK} | {role: None for role in OF_NORM if role not in more},
            aligned=(*pointers, *numbers[:-1]),
            max_registers=64,
            max_shared=8 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("2", 2, {}, (90,)),
        case("8", 8, {}, (80, 90, 100)),
        case("4.norm", 4, OF_NORM, (90,)),
        case("4.codes", 4, OF_CODES, (90,)),
    ]
