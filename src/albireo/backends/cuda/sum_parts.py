"""How a sum of a linear is cut: into chains of ascending k, each from zero, which are added in ascending order.

Used by kernels of linears and by their plans. Where the chains of a sum are computed, and by whom they are added, is no
matter of its bits; how many there are is, so that follows from the shape of the weight alone.
"""

from __future__ import annotations

from albireo.backends.cuda.kernels.parts.tiles import BUSY_TILES, MULTIPROCESSORS

#: Weight rows of a tile of few tokens.
TILE_ROWS = 64
#: The least k worth a part of its own.
_LEAST_PART = 512
_MOST_PARTS = 8
#: Inputs of a row of float32 from which on it is cut, and into how many parts at most.
_LONG, _MOST_LONG_PARTS = 8192, 32
#: Every part but the last is a whole number of these long: of what a step of 4 bits takes.
PART_STEP = 256


def num_parts(rows: int, k: int, dtype: str) -> int:
    """Chains that each sum of a matrix [rows, k] is made of: a constant of the shape, a power of two.

    float32 is one chain: the native kernels' bits. But of few rows that are long, as numbers of residual streams have:
    one program would read a chain of 28,672 for longer than all else in a layer takes.
    """
    if dtype == "float32" and rows <= TILE_ROWS and k >= _LONG:
        return min(_MOST_LONG_PARTS, 1 << (k // _LEAST_PART).bit_length() - 1)
    tiles = -(-rows // TILE_ROWS)
    most = 1 if dtype == "float32" or tiles >= BUSY_TILES else min(_MOST_PARTS, max(k // _LEAST_PART, 1))
    counts = [1 << i for i in range(most.bit_length())]

    def busy(parts: int) -> float:
        """Part of the multiprocessors that have work while the last of them has."""
        rounds = -(-tiles * parts // MULTIPROCESSORS)
        return tiles * parts / (MULTIPROCESSORS * rounds) if rounds > 1 else tiles * parts / (2 * MULTIPROCESSORS)

    return next((parts for parts in counts if busy(parts) >= 0.9), max(counts, key=busy))


def part_length(k: int, parts: int) -> int:
    """k of every part but the last."""
    return -(-k // (parts * PART_STEP)) * PART_STEP
