"""Arithmetic that Triton's interpreter gets wrong, said once so that kernels give the same numbers there and on a GPU.

Used inside kernels. Under the interpreter (Triton 3.9) tl.dot and + on bfloat16 multiply the raw 16-bit integers, a
conversion from float32 to bfloat16 drops bits instead of rounding to nearest even, and one to e4m3 neither rounds to
even nor stops at 448. On a GPU each helper is the one instruction that its name says. (It also widens bfloat16 below
2^-126 wrongly, which no helper mends.)
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Whether kernels of this process are interpreted on the CPU; decided when Triton is imported.
INTERPRETED: bool = bool(triton.knobs.runtime.interpret)
INTERP = tl.constexpr(INTERPRETED)


@triton.jit
def mma(a, b, acc):
    """acc + a @ b, summed in float32 (integers in int32). a: [M, K], b: [K, N] of one type, acc: [M, N]."""
    if INTERP and a.dtype.is_floating():
        # numpy's order of sums depends on the shape of the tile; float64 holds these sums as good as exactly
        a, b, wide = a.to(tl.float32).to(tl.float64), b.to(tl.float32).to(tl.float64), tl.zeros(acc.shape, tl.float64)
        return acc + tl.dot(a, b, wide, out_dtype=tl.float64).to(tl.float32)
    if a.dtype == tl.float32:
        return tl.dot(a, b, acc, input_precision="ieee")
    return tl.dot(a, b, acc, out_dtype=acc.dtype)


@triton.jit
def awaited(acc):
    """float32 acc as it is, used where it is made: the product that makes it is done behind this."""
    if INTERP:
        return acc
    return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=f,f", [acc], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def round_to(x, dtype: tl.constexpr):
    """float32 x in dtype (float32, bfloat16 or float16), rounded to nearest even."""
    if INTERP and (dtype == tl.bfloat16):
        bits = x.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        # rounding up the payload of a NaN could make an infinity of it
        rounded = tl.where(x != x, 0x7FC0, rounded)
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return x.to(dtype)


@triton.jit
def round_to_e4m3(x):
    """float32 x in float8 e4m3fn, to nearest even, beyond 448 the largest; NaN stays NaN."""
    if INTERP:
        size = tl.minimum(tl.abs(x), 448.0)
        bits = size.to(tl.uint32, bitcast=True)
        exponent = tl.maximum((bits >> 23).to(tl.int32) - 127, -6)
        # the spacing of e4m3 numbers here, 2^(exponent - 3), as a float32
        step = ((exponent - 3 + 127) << 23).to(tl.float32, bitcast=True)
        # adding and taking off 1.5 * 2^23 rounds to a whole number, ties to even
        whole = (size / step + 12582912.0) - 12582912.0
        whole = whole.to(tl.int32)
        carry = whole >= 16
        exponent = tl.where(carry, exponent + 1, exponent)
        whole = tl.where(carry, whole >> 1, whole)
        normal = ((exponent + 7) << 3) | (whole & 7)
        code = tl.where(whole < 8, whole, normal)
        code = code | ((x.to(tl.uint32, bitcast=True) >> 24) & 0x80).to(tl.int32)
        code = tl.where(x != x, 0x7F, code)
        return code.to(tl.uint8).to(tl.float8e4nv, bitcast=True)
    return tl.minimum(tl.maximum(x, -448.0), 448.0).to(tl.float8e4nv)


@triton.jit
def round_to_int(x):
    """float32 x, smaller than 2^22 in size, as the nearest whole number, ties to even; still float32."""
    if INTERP:
        return (x + 12582912.0) - 12582912.0
    # not that sum: a product before it could be fused with it, where a kernel allows that, and rounded once less
    return tl.inline_asm_elementwise("cvt.rni.f32.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)
