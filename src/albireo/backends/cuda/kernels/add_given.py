"""add_given: out[t] = x[t] + given[of_token[t]], or x[t] where of_token[t] is below 0.

x, out: [T, E] float32, out may be x; given: [any, E] float32; of_token: [T] int32; rows contiguous inside, any distance
apart. parts_out: what a norm of out's rows is made of, see parts/row_squares.py: the bits that a linear would leave of
such rows. A program takes some columns of a row. Steps that bring rows are not padded.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.linear_cases import OF_CODES, OF_NORM
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, parts_arguments, store_parts_of_piece

_BLOCK = 512


@triton.jit
def add_given_kernel(
    x,
    given,
    of_token,
    out,
    gain,
    scaled,
    squares,
    x_stride,
    given_stride,
    out_stride,
    cols,
    scaled_stride,
    squares_stride,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    value = tl.load(x + row * x_stride + at, mask=mask, other=0.0)
    source = tl.load(of_token + row)
    is_given = at < tl.where(source >= 0, cols, 0)
    more = tl.load(given + source.to(tl.int64) * given_stride + at, mask=is_given, other=0.0)
    # where nothing is added, -0 stays what it is
    value = tl.where(is_given, value + more, value)
    tl.store(out + row * out_stride + at, value, mask=mask)
    if gain is not None:
        store_parts_of_piece(value, cols, gain, scaled, scaled_stride, squares, squares_stride)


def add_given(
    x: torch.Tensor,
    given: torch.Tensor,
    of_token: torch.Tensor,
    out: torch.Tensor,
    parts_out: RowParts | None = None,
) -> None:
    num_tokens, cols = out.shape
    add_given_kernel[(num_tokens, triton.cdiv(cols, _BLOCK))](
        x=x,
        given=given,
        of_token=of_token,
        out=out,
        x_stride=x.stride(0),
        given_stride=given.stride(0),
        out_stride=out.stride(0),
        cols=cols,
        **parts_arguments(parts_out),
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("x_stride", "given_stride", "out_stride", "cols", "scaled_stride", "squares_stride")

    def case(name: str, more: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        pointers = dict.fromkeys(("x", "given", "out"), "*fp32") | more
        return AotCase(
            f"add_given.{name}",
            add_given_kernel,
            pointers | {"of_token": "*i32"} | dict.fromkeys(numbers, "i32"),
            {"BLOCK": _BLOCK} | {role: None for role in OF_NORM if role not in more},
            aligned=(*pointers, *numbers[:-1]),
            max_registers=64,
            max_shared=8 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [case("rows", {}, (80, 90, 100)), case("norm", OF_NORM, (80, 90, 100)), case("codes", OF_CODES, (90,))]
