"""Rows of numbers as 8-bit codes, for kernels that end in such rows.

Called by norm, elementwise and attention with a whole row in one tile of [groups of 16, 16] float32, zeros
behind cols; by linears with the columns that they have, and by attention with heads, where those share no scale with
others (e4m3). Does not know where the numbers come from.
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

    out uint8: a token row of 8-bit integers, float8 e4m3: one of those (../tokens.py), for both of which the whole row
    is in the tile; else the numbers, rounded.
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
def e4m3_lines(y):
    """[M, 128] numbers, of which each 128 share a scale -> bytes of their codes, in the order of a weight's line (byte
    4 i + p is input 32 p + i), and scales [M]."""
    size = tl.abs(y)
    finite = tl.where(size <= _LARGEST, 1, 0)
    largest = tl.max(tl.where(finite == 1, size, 0.0), axis=1)
    scale = code_scale(largest, tl.min(finite, axis=1) == 1, 448.0)
    is_scaled = scale > 0.0
    by = tl.where(is_scaled, tl.div_rn(448.0, tl.where(is_scaled, largest, 1.0)), 0.0)
    codes = round_to_e4m3(tl.where(is_scaled[:, None], y, 0.0) * by[:, None]).to(tl.uint8, bitcast=True)
    planes = tl.reshape(codes, (y.shape[0], _FLOAT_LINE // _PLANE, _PLANE))
    return tl.reshape(tl.permute(planes, (0, 2, 1)), (y.shape[0], _FLOAT_LINE)), scale


@triton.jit
def _store_e4m3(start, y, cols, BLOCK: tl.constexpr):
    """Codes and scales of a whole row, zeros to a whole line."""
    codes, scales = e4m3_lines(tl.reshape(y, (BLOCK // _FLOAT_LINE, _FLOAT_LINE)))
    length = tl.cdiv(cols, _FLOAT_LINE) * _FLOAT_LINE
    at = tile_columns(0, BLOCK)
    codes = tl.reshape(codes, (BLOCK // _STEP, _STEP))
    tl.store(start.to(tl.pointer_type(tl.uint8)) + at, codes, mask=at < length)
    line = tl.arange(0, BLOCK // _FLOAT_LINE)
    tl.store((start + length).to(tl.pointer_type(tl.float32)) + line, scales, mask=line * _FLOAT_LINE < cols)


@triton.jit
def store_heads_as_codes(start, head, y, is_row, NUM_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr):
    """y: [M, HEAD_DIM], a head each, whole lines: its part of the row of e4m3 at start [M]."""
    LINES: tl.constexpr = HEAD_DIM // _FLOAT_LINE
    codes, scales = e4m3_lines(tl.reshape(y, (y.shape[0] * LINES, _FLOAT_LINE)))
    at = start.to(tl.pointer_type(tl.uint8)) + head * HEAD_DIM
    mask = is_row[:, None]
    tl.store(at[:, None] + tl.arange(0, HEAD_DIM)[None, :], tl.reshape(codes, y.shape), mask=mask)
    at = (start + NUM_HEADS * HEAD_DIM).to(tl.pointer_type(tl.float32)) + head * LINES
    tl.store(at[:, None] + tl.arange(0, LINES)[None, :], tl.reshape(scales, (y.shape[0], LINES)), mask=mask)


@triton.jit
def store_columns(out, token, num_tokens, out_stride, first_column, y, cols):
    """y: [tokens, columns from first_column on], whole lines of them: their part of rows of e4m3 of cols numbers."""
    NT: tl.constexpr = y.shape[0]
    NC: tl.constexpr = y.shape[1]
    LINES: tl.constexpr = NC // _FLOAT_LINE
    column = first_column + tl.arange(0, NC)
    y = tl.where((column < cols)[None, :], y, 0.0)
    codes, scales = e4m3_lines(tl.reshape(y, (NT * LINES, _FLOAT_LINE)))
    length = tl.cdiv(cols, _FLOAT_LINE) * _FLOAT_LINE
    start = out + token.to(tl.int64) * out_stride
    is_token = (token < num_tokens)[:, None]
    at = start.to(tl.pointer_type(tl.uint8))[:, None] + column[None, :]
    tl.store(at, tl.reshape(codes, (NT, NC)), mask=is_token & (column < length)[None, :])
    line = first_column // _FLOAT_LINE + tl.arange(0, LINES)
    at = (start + length).to(tl.pointer_type(tl.float32))[:, None] + line[None, :]
    tl.store(at, tl.reshape(scales, (NT, LINES)), mask=is_token & (line * _FLOAT_LINE < cols)[None, :])
