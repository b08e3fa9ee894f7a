"""fp4.gG inside kernels: e2m1 codes as whole numbers, and the numbers of the scales of groups.

Used by kernels that read a DeviceMatrix of that kind. Does not know how codes lie.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP


@triton.jit
def twice_e2m1(code):
    """Twice the numbers of e2m1 codes in int8: 0 1 2 3 4 6 8 12, and with the fourth bit their negatives."""
    if INTERP:
        size = (code & 7).to(tl.int32)
        twice = tl.where(size < 2, size, (2 + (size & 1)) << tl.maximum((size >> 1) - 1, 0))
        return tl.where((code & 8) != 0, -twice, twice).to(tl.int8)
    # Of four codes, a byte each: their lower three bits side by side pick bytes of a table of eight, once of sizes and
    # once of their negatives; the fourth, spread over its byte, says which of the two.
    return tl.inline_asm_elementwise(
        """{ .reg .b32 s, p, n;
        shr.u32 s, $1, 4; or.b32 s, s, $1; prmt.b32 s, s, s, 0x0020; and.b32 s, s, 0x7777;
        prmt.b32 p, 0x03020100, 0x0C080604, s;
        prmt.b32 n, 0xFDFEFF00, 0xF4F8FAFC, s;
        shl.b32 s, $1, 4; prmt.b32 s, s, s, 0xBA98;
        lop3.b32 $0, s, n, p, 0xCA; }""",
        "=r,r",
        [code],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )


@triton.jit
def from_gamma(gamma, GROUP: tl.constexpr):
    """The numbers of scales of groups, in uint8: e4m3 of groups of 16, else e8m0. None is NaN."""
    bits = gamma.to(tl.int32)
    if GROUP == 16:  # their bits in a float32's places stand for 2^-120 of them
        return (((bits & 0x7F) << 20) | ((bits & 0x80) << 24)).to(tl.float32, bitcast=True) * 1.329227995784916e36
    return tl.maximum(bits << 23, 1 << 22).to(tl.float32, bitcast=True)
