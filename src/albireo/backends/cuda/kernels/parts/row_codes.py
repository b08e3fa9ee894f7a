"""Rows of numbers as 8-bit codes with one scale a row, for kernels that end in such rows.

Called by norm, elementwise, gated and attention with a whole row in one tile of [groups of 16, 16] float32, zeros
behind cols. Does not know where the numbers come from.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import round_to, round_to_e4m3, round_to_int
from albireo.backends.cuda.matrix import PLANE
from albireo.backends.cuda.tokens import FLOAT_LINE, LINE, SUM_STEP

_STEP = tl.constexpr(SUM_STEP)
_LINE, _FLOAT_LINE, _PLANE = tl.constexpr(LINE), tl.constexpr(FLOAT_LINE), tl.constexpr(PLANE)
_NUMBERS = 1024
_LARGEST = tl.constexpr(3.4028234663852886e38)
#: 127 divided by no more than this is infinite; such a row counts as zeros.
_TOO_SMALL = tl.constexpr(127.0 * 2.0**-128)
_SMALLEST_NORMAL = tl.constexpr(2.0**-126)


def row_block(cols: int) -> int:
    """Columns of a tile that holds a row of cols: a power of two, whole lines of codes."""
    return max(LINE, FLOAT_LINE, int(triton.next_power_of_2(cols)))


def row_warps(block: int) -> int:
    """Warps for such a tile: eight numbers a thread, up to 16384 columns sixteen."""
    return min(32, max(1, block // 256))


def output_tile(out: torch.dtype, cols: int) -> tuple[int, int]:
    """Columns of a tile and tiles of a row: codes need a row in one, numbers are shared by more programs."""
    if out in (torch.uint8, torch.float8_e4m3fn):
        return row_block(cols), 1
    return _NUMBERS, int(triton.cdiv(cols, _NUMBERS))


@triton.jit
def tile_columns(first, BLOCK: tl.constexpr):
    """[BLOCK / 16, 16] the columns from first on."""
    group = tl.arange(0, BLOCK // _STEP)
    return first + group[:, None] * _STEP + tl.arange(0, _STEP)[None, :]


@triton.jit
def row_max(y):
    """The largest magnitude of a tile, and whether all of it are finite numbers."""
    size = tl.abs(y)
    finite = tl.where(size <= _LARGEST, 1, 0)
    size = tl.where(finite == 1, size, 0.0)
    return tl.max(tl.max(size, axis=1), axis=0), tl.min(tl.min(finite, axis=1), axis=0) == 1


@triton.jit
def store_row(out, row, out_stride, at, y, cols, BLOCK: tl.constexpr):
    """Write columns at of a row as the type of out wants them.

    out uint8: a token row of 8-bit integers, float8 e4m3: one of those (../tokens.py); else the numbers, rounded. Codes
    need the whole row in the tile.
    """
    start = out + row.to(tl.int64) * out_stride
    if out.dtype.element_ty == tl.uint8:
        _store_token(start, at, y, cols, BLOCK)
    elif out.dtype.element_ty == tl.float8e4nv:
        _store_e4m3(start, y, cols, BLOCK)
    else:
        tl.store(start + at, round_to(y, out.dtype.element_ty), mask=at < cols)


@triton.jit
def _store_token(start, at, y, cols, BLOCK: tl.constexpr):
    """Codes y * 127 / largest to nearest even, zeros to a whole line; scale largest / 127; sums of codes before 0, 16,
    32, ... and cols. A row with NaN or an infinity has the scale NaN and zeros for codes."""
    largest, finite = row_max(y)
    scaled = finite & (largest > _TOO_SMALL)
    by = tl.div_rn(127.0, tl.where(scaled, largest, 1.0))
    codes = round_to_int(tl.where(scaled, y, 0.0) * by)
    length = tl.cdiv(cols, _LINE) * _LINE
    tl.store(start.to(tl.pointer_type(tl.int8)) + at, codes.to(tl.int8), mask=at < length)
    tail = (start + length).to(tl.pointer_type(tl.float32))
    tl.store(tail, tl.where(finite, tl.div_rn(largest, 127.0), float("nan")))
    tl.store(tail + 1, 0.0)
    # whole numbers below 2^24: exact in any order
    sums = tl.cumsum(tl.sum(codes, axis=1), axis=0)
    group = tl.arange(0, BLOCK // _STEP)
    tl.store(tail + 2 + group, sums, mask=group * _STEP < cols)


@triton.jit
def code_scale(largest, finite, LARGEST_CODE: tl.constexpr):
    """The scale that takes largest to the largest code: 0 below the normal numbers, NaN where not all are finite."""
    scale = tl.div_rn(largest, LARGEST_CODE)
    scale = tl.where(scale < _SMALLEST_NORMAL, 0.0, scale)
    return tl.where(finite, scale, float("nan"))


@triton.jit
def to_code(x, scale, dtype: tl.constexpr):
    """x / scale as the nearest int8 or e4m3 number; 0 where the scale is 0 or NaN."""
    is_scaled = scale > 0.0
    quotient = tl.div_rn(tl.where(is_scaled, x, 0.0), tl.where(is_scaled, scale, 1.0))
    if dtype == tl.int8:
        return round_to_int(quotient).to(tl.int8)
    else:
        return round_to_e4m3(quotient)


@triton.jit
def _store_e4m3(start, y, cols, BLOCK: tl.constexpr):
    """Codes y / scale, zeros to a whole line, each line as a weight's is: byte 4 i + p is input 32 p + i."""
    largest, finite = row_max(y)
    scale = code_scale(largest, finite, 448.0)
    codes = to_code(y, scale, tl.float8e4nv).to(tl.uint8, bitcast=True)
    planes = tl.reshape(codes, (BLOCK // _FLOAT_LINE, _FLOAT_LINE // _PLANE, _PLANE))
    codes = tl.reshape(tl.permute(planes, (0, 2, 1)), (BLOCK // _STEP, _STEP))
    length = tl.cdiv(cols, _FLOAT_LINE) * _FLOAT_LINE
    at = tile_columns(0, BLOCK)
    tl.store(start.to(tl.pointer_type(tl.uint8)) + at, codes, mask=at < length)
    tl.store((start + length).to(tl.pointer_type(tl.float32)), scale)
