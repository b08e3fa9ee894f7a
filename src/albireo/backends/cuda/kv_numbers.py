"""Elements of the KV cache as numbers that a product takes. Used inside attention; says nothing of scales."""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.arithmetic import INTERP


@triton.jit
def numbers_of(x, dtype: tl.constexpr):
    """Elements in dtype, exactly: they fit in whatever they are computed in. uint8 is e4m3 as bytes."""
    if x.dtype == dtype:
        return x
    if x.dtype == tl.uint8:
        # its 7 bits are those of a float16 that is 2^8 too small
        half = (((x & 0x80).to(tl.uint16) << 8) | ((x & 0x7F).to(tl.uint16) << 7)).to(tl.float16, bitcast=True)
        return (half.to(tl.float32) * 256.0).to(dtype)
    return x.to(tl.float32).to(dtype)


@triton.jit
def where_it_is(x):
    """x. Keeps the compiler from moving codes, byte by byte, to where HMMA wants them transposed before they are x.

    With it the numbers are moved, by wide stores and LDSM: 776 instructions a tile of a 128-wide head, not 1004.
    """
    if INTERP or x.dtype == tl.float32:
        return x
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], x.dtype, is_pure=False, pack=2)
