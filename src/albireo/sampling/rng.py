"""One counter-based stream of random numbers per sequence: number i is a function of (seed, i) and nothing else.

Called by sampler.py. Does not know logits, batches or what the numbers are for; holds no state, so a stream
resumes anywhere and does not depend on who else is drawing.
"""

from __future__ import annotations

_MASK32 = 0xFFFFFFFF
#: Multipliers and key increments of Philox4x32 (the increments: golden ratio and sqrt(3) - 1).
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Scramble a 128-bit counter under a 64-bit key into four random 32-bit words.

    Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Philox4x32-10).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c2 = (product1 >> 32) ^ c1 ^ k0, (product0 >> 32) ^ c3 ^ k1
        c1, c3 = product1 & _MASK32, product0 & _MASK32
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK32, (k1 + _KEY_STEPS[1]) & _MASK32
    return c0, c1, c2, c3


def uniform(seed: int, position: int) -> float:
    """The number at one position of a seed's stream.

    Args:
        seed: any whole number; its low 64 bits count (so -1 and 2**64 - 1 are the same stream).
        position: of the number in the stream, from 0; for tokens len(output_token_ids).
    Returns: a multiple of 2**-53 in [0, 1).
    """
    words = philox4x32((position & _MASK32, position >> 32, 0, 0), (seed & _MASK32, (seed >> 32) & _MASK32))
    # 27 + 26 bits: as many as a float64 in [0, 1) can hold evenly spaced.
    return ((words[0] >> 5) * 2**26 + (words[1] >> 6)) * 2.0**-53
