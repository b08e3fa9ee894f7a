"""Heads of a token: norm, rotation, and the way into the KV cache.

Called by qk_norm_rope_kv_write, head_norm, rope and kv_write, which therefore give the same bits. A tile is some heads
of one row as two halves [HEADS, HALF] float32, zeros behind D / 2: channel i of a head and channel i + D / 2 are a
pair, or, side by side, channels 2i and 2i + 1. Every head is computed by itself. Does not know where rows come from.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.row_codes import code_scale, to_code

_LARGEST = tl.constexpr(3.4028234663852886e38)


def head_tile(head_dim: int, num_heads: int) -> tuple[int, int]:
    """HEADS and HALF: about 512 numbers, powers of two."""
    half = int(triton.next_power_of_2(head_dim // 2))
    return min(max(1, 256 // half), int(triton.next_power_of_2(num_heads))), half


@triton.jit
def load_heads(row, first, count, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """Both halves of heads first .. first + HEADS of a row of count heads."""
    head = first + tl.arange(0, HEADS)
    channel = tl.arange(0, HALF)
    mask = (head < count)[:, None] & (channel < HEAD_DIM // 2)[None, :]
    at = row + head[:, None] * HEAD_DIM + channel[None, :]
    a = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    b = tl.load(at + HEAD_DIM // 2, mask=mask, other=0.0).to(tl.float32)
    return a, b


@triton.jit
def store_heads(row, first, count, a, b, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """The reverse of load_heads, rounded to the type of the row."""
    head = first + tl.arange(0, HEADS)
    channel = tl.arange(0, HALF)
    mask = (head < count)[:, None] & (channel < HEAD_DIM // 2)[None, :]
    at = row + head[:, None] * HEAD_DIM + channel[None, :]
    tl.store(at, round_to(a, row.dtype.element_ty), mask=mask)
    tl.store(at + HEAD_DIM // 2, round_to(b, row.dtype.element_ty), mask=mask)


@triton.jit
def load_pairs(row, first, count, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """As load_heads, of pairs that lie side by side."""
    at, mask = _pairs(first, count, HEAD_DIM, HEADS, HALF)
    return tl.split(tl.load(row + at, mask=mask, other=0.0).to(tl.float32))


@triton.jit
def store_pairs(row, first, count, a, b, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """The reverse of load_pairs, rounded to the type of the row."""
    at, mask = _pairs(first, count, HEAD_DIM, HEADS, HALF)
    tl.store(row + at, round_to(tl.join(a, b), row.dtype.element_ty), mask=mask)


@triton.jit
def _pairs(first, count, HEAD_DIM: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr):
    """[HEADS, HALF, 2] where numbers of pairs that lie side by side are in a row, and whether they are there."""
    head = (first + tl.arange(0, HEADS))[:, None, None]
    channel = 2 * tl.arange(0, HALF)[None, :, None] + tl.arange(0, 2)[None, None, :]
    return head * HEAD_DIM + channel, (head < count) & (channel < HEAD_DIM)


@triton.jit
def load_halves(vector, HEAD_DIM: tl.constexpr, HALF: tl.constexpr):
    """[1, HALF] each: D numbers that are the same for every head; of a row of a rotation table, cosines and sines."""
    channel = tl.arange(0, HALF)[None, :]
    a = tl.load(vector + channel, mask=channel < HEAD_DIM // 2, other=0.0)
    return a, tl.load(vector + HEAD_DIM // 2 + channel, mask=channel < HEAD_DIM // 2, other=0.0)


@triton.jit
def centered(a, b, HEAD_DIM: tl.constexpr, HALF: tl.constexpr):
    """Each head minus its mean; what is loaded of no channel stays zero."""
    mean = tl.div_rn(tl.sum(a + b, axis=1), HEAD_DIM * 1.0)[:, None]
    is_channel = (tl.arange(0, HALF) < HEAD_DIM // 2)[None, :]
    return tl.where(is_channel, a - mean, 0.0), tl.where(is_channel, b - mean, 0.0)


@triton.jit
def normalize(a, b, weight, eps, HEAD_DIM: tl.constexpr, HALF: tl.constexpr):
    """Each head over the root of its mean square, times weight [D] where there is one."""
    squares = tl.sum(a * a + b * b, axis=1)
    factor = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, HEAD_DIM * 1.0) + eps))[:, None]
    a, b = a * factor, b * factor
    if weight is not None:
        gain_a, gain_b = load_halves(weight, HEAD_DIM, HALF)
        a, b = a * gain_a, b * gain_b
    return a, b


@triton.jit
def normalize_pairs(a, b, weight, eps, HEAD_DIM: tl.constexpr, HALF: tl.constexpr):
    """normalize() of pairs that lie side by side."""
    a, b = normalize(a, b, None, eps, HEAD_DIM, HALF)
    if weight is not None:
        gain_a, gain_b = load_pairs(weight, 0, 1, HEAD_DIM, 1, HALF)
        a, b = a * gain_a, b * gain_b
    return a, b


@triton.jit
def rotate(a, b, table, position, HEAD_DIM: tl.constexpr, HALF: tl.constexpr):
    """table: [positions, 2, D / 2] float32, cosines then sines."""
    cos, sin = load_halves(table + position.to(tl.int64) * HEAD_DIM, HEAD_DIM, HALF)
    return a * cos - b * sin, b * cos + a * sin


@triton.jit
def store_cached(
    cache,
    scales,
    slot,
    block_size,
    first,
    a,
    b,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """KV heads first .. first + HEADS of COUNT to their places in a layer's keys or values (kv.py's LayerKV).

    A cache of codes gets the nearest of number / scale, where the scale takes the head's largest number to the largest
    code. Channels behind D are left as they are: zeros from the start.
    """
    element: tl.constexpr = cache.dtype.element_ty
    head = first + tl.arange(0, HEADS)
    channel = tl.arange(0, HALF)
    mask = (head < COUNT)[:, None] & (channel < HEAD_DIM // 2)[None, :]
    place = ((slot // block_size).to(tl.int64) * COUNT + head) * block_size + slot % block_size
    at = cache + place[:, None] * PADDED_DIM + channel[None, :]
    if scales is None:
        tl.store(at, round_to(a, element), mask=mask)
        tl.store(at + HEAD_DIM // 2, round_to(b, element), mask=mask)
    else:
        scale = _head_scales(a, b, 127.0 if element == tl.int8 else 448.0)
        tl.store(scales + place, scale, mask=head < COUNT)
        tl.store(at, to_code(a, scale[:, None], element), mask=mask)
        tl.store(at + HEAD_DIM // 2, to_code(b, scale[:, None], element), mask=mask)


@triton.jit
def _head_scales(a, b, LARGEST_CODE: tl.constexpr):
    size_a, size_b = tl.abs(a), tl.abs(b)
    finite = tl.where((size_a <= _LARGEST) & (size_b <= _LARGEST), 1, 0)
    size = tl.where(finite == 1, tl.maximum(size_a, size_b), 0.0)
    return code_scale(tl.max(size, axis=1), tl.min(finite, axis=1) == 1, LARGEST_CODE)
