"""join_columns: out[t] = the rows of all parts, one behind another; and which entry of the parts an entry of out was.

parts: [P, T, any] float32, columns contiguous: part p has the columns p * V // P to (p + 1) * V // P of V. out: [T, V]
float32, rows any distance apart. joined_ids: of places in rows of P parts of equal width, which entry of the vocabulary
each is: ids of its part count from where that begins; -1 stays -1. A program copies a piece of a part's row.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 1024


@triton.jit
def join_columns_kernel(
    parts, out, part_stride, row_stride, out_stride, cols, PARTS: tl.constexpr, BLOCK: tl.constexpr
):
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    first, end = part * cols // PARTS, (part + 1) * cols // PARTS
    at = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    mask = at < end - first
    value = tl.load(parts + part * part_stride.to(tl.int64) + row * row_stride + at, mask=mask)
    tl.store(out + row * out_stride + first + at, value, mask=mask)


def join_columns(parts: torch.Tensor, out: torch.Tensor) -> None:
    """parts may be wider than what is taken of them."""
    num_parts, (num_rows, cols) = len(parts), out.shape
    join_columns_kernel[(num_rows, num_parts, triton.cdiv(triton.cdiv(cols, num_parts), _BLOCK))](
        parts,
        out,
        parts.stride(0),
        parts.stride(1),
        out.stride(0),
        cols,
        PARTS=num_parts,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


@triton.jit
def joined_ids_kernel(places, ids, part_stride, row_stride, cols, width, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    place = tl.load(places + row * width + at, mask=at < width, other=-1)
    part = tl.maximum(place, 0) // width
    found = ids + part * part_stride.to(tl.int64) + row * row_stride + tl.maximum(place, 0) % width
    token = tl.load(found, mask=(at < width) & (place >= 0), other=-1)
    token = tl.where(token < 0, -1, token + part * cols // PARTS)
    tl.store(places + row * width + at, token, mask=at < width)


def joined_ids(places: torch.Tensor, ids: torch.Tensor, vocab: int) -> None:
    """places: [T, W] int32 without gaps, of rows of P * W; become ids. ids: [P, T, any] int32 of which W count."""
    num_rows, width = places.shape
    joined_ids_kernel[(num_rows,)](
        places,
        ids,
        ids.stride(0),
        ids.stride(1),
        vocab,
        width,
        PARTS=len(ids),
        BLOCK=triton.next_power_of_2(width),
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("part_stride", "row_stride", "out_stride", "cols")
    columns = {"parts": "*fp32", "out": "*fp32"} | dict.fromkeys(numbers, "i32")
    ids = {"places": "*i32", "ids": "*i32"} | dict.fromkeys(("part_stride", "row_stride", "cols", "width"), "i32")
    return [
        AotCase(
            "join_columns.8",
            join_columns_kernel,
            columns,
            {"PARTS": 8, "BLOCK": _BLOCK},
            aligned=tuple(columns),
            max_registers=40,
            # a part's place in a row is at no round number, so that 16 bytes read are not 16 bytes written
            max_shared=4 << 10,
        ),
        AotCase(
            "joined_ids.8",
            joined_ids_kernel,
            ids,
            {"PARTS": 8, "BLOCK": 128},
            num_warps=1,
            max_registers=64,
            max_shared=0,
        ),
    ]
