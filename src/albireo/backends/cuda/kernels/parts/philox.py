"""The stream of random numbers of a sequence, inside kernels: bit for bit that of albireo/sampling/rng.py.

Number i of a seed's stream is a function of (seed, i) alone; see Salmon et al., SC 2011 (Philox4x32-10).
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Scramble a counter of four uint32 under a key of two."""
    for _ in tl.static_range(10):
        low0, high0 = c0 * 0xD2511F53, tl.umulhi(c0, tl.full(c0.shape, 0xD2511F53, tl.uint32))
        low1, high1 = c2 * 0xCD9E8D57, tl.umulhi(c2, tl.full(c2.shape, 0xCD9E8D57, tl.uint32))
        c0, c2 = high1 ^ c1 ^ k0, high0 ^ c3 ^ k1
        c1, c3 = low1, low0
        k0, k1 = k0 + 0x9E3779B9, k1 + 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def uniform(seed, position):
    """float64 in [0, 1), a multiple of 2^-53. seed: int64, the low 64 bits of the seed; position: int64, from 0."""
    zero = (position * 0).to(tl.uint32)
    w0, w1, _, _ = philox4x32(
        (position & 0xFFFFFFFF).to(tl.uint32),
        ((position >> 32) & 0xFFFFFFFF).to(tl.uint32),
        zero,
        zero,
        (seed & 0xFFFFFFFF).to(tl.uint32),
        ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32),
    )
    # 27 + 26 bits, all of which a float64 holds
    bits = ((w0 >> 5).to(tl.int64) << 26) + (w1 >> 6).to(tl.int64)
    return bits.to(tl.float64) * (1.0 / 9007199254740992.0)
