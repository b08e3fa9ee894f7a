"""What readers of GGUF blocks give, and how numbers and codes lie in the bytes of a block.

Used by gguf_blocks.py, gguf_k_blocks.py and gguf_grid_blocks.py. In blocks of 32 the low halves of the bytes are the
first 16 numbers, the high halves the last 16.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.encoded import F32, U8

#: Codes [blocks, size], scales [blocks, groups], the zero of all of them, offsets [blocks, groups].
Parts = tuple[U8, F32, int, F32 | None]
#: Args: blocks [blocks, bytes].
Reader = Callable[[U8], Parts]
#: Of signed().
ZERO = 128


def half(data: U8) -> F32:
    """[blocks, 2 n] bytes -> [blocks, n] float16 as float32."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def nibbles(data: U8) -> U8:
    """[..., n] bytes -> [..., 2 n]: the low halves, then the high halves."""
    codes = np.empty((*data.shape[:-1], 2, data.shape[-1]), np.uint8)
    np.bitwise_and(data, np.uint8(15), out=codes[..., 0, :])
    np.right_shift(data, np.uint8(4), out=codes[..., 1, :])
    return codes.reshape(*data.shape[:-1], -1)


def pairs(data: U8) -> U8:
    """[blocks, n] bytes -> [blocks, 4, n]: four codes of 2 bits a byte, the lowest first."""
    return (data[:, None] >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)


def signed(numbers: NDArray[np.int8]) -> U8:
    """Codes of int8 numbers, [blocks, ...] -> [blocks, size]."""
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), -1) ^ np.uint8(0x80)
