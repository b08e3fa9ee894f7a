"""Stored tensors as numpy arrays: numbers of every type, words of several codes, finite or refused.

Called by the format files. Does not know formats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch, short
from albireo.quantization.encoded import F32, U8, e4m3_values, e8m0_values
from albireo.quantization.formats.matrix import StoredTensors

FLOATS = ("F16", "BF16", "F32")
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1", "U8": "u1", "I32": "<i4", "I64": "<i8"}
_BYTES = ("F8_E4M3", "F8_E8M0")


def array(stored: StoredTensors, name: str) -> NDArray[np.generic]:
    """The tensor as it lies: integers as such, float8 as bytes, bfloat16 as words of 16 bits; a view."""
    kind = stored.type_name(name)
    dtype = "u1" if kind in _BYTES else _NUMPY[kind]
    return np.frombuffer(stored.buffer(name), np.dtype(dtype)).reshape(stored.shape(name))


def floats(stored: StoredTensors, name: str) -> F32:
    """A tensor of a float type as float32, exactly.

    Raises: WeightMismatch for infinity or NaN.
    """
    kind, numbers = stored.type_name(name), array(stored, name)
    if kind == "BF16":
        result: F32 = (numbers.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif kind == "F8_E8M0":
        result = e8m0_values()[checked_e8m0(numbers.astype(np.uint8), name)]
    elif kind == "F8_E4M3":
        result = e4m3_values()[numbers.astype(np.uint8)]
    else:
        result = numbers.astype(np.float32)
    return finite(result, name)


def finite(numbers: F32, name: str) -> F32:
    """The same numbers. Raises: WeightMismatch naming the tensor and the first place that is not finite."""
    if not np.isfinite(numbers).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(numbers))[0]]
        raise WeightMismatch(
            f"tensor {short(name)} holds {numbers[tuple(where)]} at {where}; weights and scales must be finite numbers"
        )
    return numbers


def checked_e8m0(exponents: U8, name: str) -> U8:
    """The same codes. Raises: WeightMismatch for 255, which is NaN."""
    if (exponents == 255).any():
        where = [int(i) for i in np.argwhere(exponents == 255)[0]]
        raise WeightMismatch(f"tensor {short(name)} holds nan (e8m0 code 255) at {where}; scales must be finite")
    return exponents


def checked_e4m3(codes: U8, name: str) -> U8:
    """The same codes. Raises: WeightMismatch for one that is NaN."""
    is_nan = (codes & 0x7F) == 0x7F
    if is_nan.any():
        where = [int(i) for i in np.argwhere(is_nan)[0]]
        raise WeightMismatch(f"tensor {short(name)} holds nan at {where}; weights and scales must be finite numbers")
    return codes


def unpack_words(words: NDArray[np.generic], bits: int) -> U8:
    """[rows, n] words of 32 bits, codes behind one another, the lowest bits first: [rows, n * 32 // bits] codes.

    Args: bits: 2 to 8. Of a width that does not divide 32 a code may begin in one word and end in the next.
    """
    data = np.ascontiguousarray(words).view(np.uint8)  # little endian: the lowest byte first
    if bits == 8:
        return data
    if 32 % bits == 0:
        return _codes_of_bytes(bits)[data].view(np.uint8)
    count = data.shape[1] * 8 // bits
    single = np.unpackbits(data, axis=1, count=count * bits, bitorder="little").reshape(-1, bits)
    return np.packbits(single, axis=1, bitorder="little").reshape(len(data), count)


def nibbles(data: U8) -> U8:
    """[..., n] bytes -> [..., 2 n] codes of 4 bits, the low half of each byte first."""
    return _codes_of_bytes(4)[data].view(np.uint8)


def _codes_of_bytes(bits: int) -> NDArray[np.generic]:
    """[256] of each byte its codes of 2 or 4 bits, the lowest first, in the bytes of one word: a look-up is quicker."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    codes = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.ascontiguousarray(codes).view("<u2" if bits == 4 else "<u4")[:, 0]
