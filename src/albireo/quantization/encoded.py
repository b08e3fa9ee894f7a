"""Encoded: a weight matrix in few bits, as arrays. What every reader of a checkpoint makes and every packer takes.

Made by formats/ and methods/, packed by backends, decoded by backends/reference. One code a byte: this is the form
between two packings, held for one matrix at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import NEST, Encoding
from albireo.errors import InvariantError

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

#: Low bits of a float32 scale of kind integer that must be zero: the zero point is stored there (16 significant bits
#: are left: every float16 and bfloat16 scale is one of these numbers).
SCALE_SPARE_BITS = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A matrix [N, K].

    Fields:
        codes: [N, K]. int8: the signed number + 128. int4: 0 to 15. fp4: e2m1 bits. fp8: e4m3fn bits. q2_k to
            q6_k: of as many bits as the name says. nested table: places in NUMBERS.
        scale: [N, groups] float32; progressive, microscaled: [N, 1]; nested: [N, nests], float16 numbers.
        zero: [N, groups] of kind integer (0 to 255) and progressive (0 to 15), else None. int8: 128 throughout. Of kind
            nested affine what offset is multiplied with (0 to 255).
        gamma: [N, groups] of kind progressive (1 to 15; |(code - zero) * gamma| <= 127) and microscaled (bits of e8m0
            or, of groups of 16, of e4m3fn; no NaN), nested and nested table (the signed number + 128) and nested
            affine, else None.
        offset: [N, groups] float32 of kind affine, [N, nests] float16 numbers of kind nested affine, else None.
    """

    encoding: Encoding
    codes: U8
    scale: F32
    zero: U8 | None = None
    gamma: U8 | None = None
    offset: F32 | None = None

    def __post_init__(self) -> None:
        n, k = self.codes.shape
        groups = (n, self.encoding.num_groups(k))
        kind, nests = self.encoding.kind, (n, self.encoding.num_nests(k))
        has_gammas = kind in ("progressive", "microscaled")
        wanted = {
            "scale": nests if self.encoding.is_nested else (n, 1) if has_gammas else groups,
            "zero": groups if kind in ("integer", "progressive", "nested affine") else None,
            "gamma": groups if has_gammas or self.encoding.is_nested else None,
            "offset": {"affine": groups, "nested affine": nests}.get(kind),
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if (None if array is None else array.shape) != shape:
                raise InvariantError(f"{self.encoding} of {n} x {k}: {name} is not {shape}")

    @property
    def shape(self) -> tuple[int, int]:
        n, k = self.codes.shape
        return n, k

    def rows(self, start: int, stop: int) -> Encoded:
        """Output channels start..stop of it, as views."""
        zero, gamma = (None if part is None else part[start:stop] for part in (self.zero, self.gamma))
        offset = None if self.offset is None else self.offset[start:stop]
        return Encoded(self.encoding, self.codes[start:stop], self.scale[start:stop], zero, gamma, offset)

    def columns(self, start: int, stop: int) -> Encoded:
        """Inputs start..stop of it, as views. Raises: InvariantError when they are no whole groups."""
        size, unit, k = self.encoding.group, self.encoding.unit, self.shape[1]
        if unit is not None and (start % unit or (stop % unit and stop != k)):
            raise InvariantError(f"inputs {start} to {stop} are no whole groups of {self.encoding}")
        groups = slice(None) if size is None else slice(start // size, -(-stop // size))
        if self.encoding.is_nested:
            nests = slice(start // NEST, -(-stop // NEST))
            zero, gamma = (None if part is None else part[:, groups] for part in (self.zero, self.gamma))
            offset = None if self.offset is None else self.offset[:, nests]
            return Encoded(self.encoding, self.codes[:, start:stop], self.scale[:, nests], zero, gamma, offset)
        zero, gamma = (None if part is None else part[:, groups] for part in (self.zero, self.gamma))
        offset = None if self.offset is None else self.offset[:, groups]
        scale = self.scale if self.gamma is not None else self.scale[:, groups]
        return Encoded(self.encoding, self.codes[:, start:stop], scale, zero, gamma, offset)

    def decode(self) -> F32:
        """[N, K] the numbers it stands for, each rounded to float32 once or twice."""
        kind = self.encoding.kind
        if self.encoding.is_nested:
            return self._decode_nested()
        if kind == "microscaled":
            codes = E2M1_VALUES[self.codes]
        else:
            codes = e4m3_values()[self.codes] if kind == "float" else self.codes.astype(np.float32)
        if self.zero is not None:
            codes = codes - self._spread(self.zero.astype(np.float32))
        if self.gamma is not None:
            codes = codes * self._spread(gamma_values(self.encoding)[self.gamma])
        numbers = codes * self._spread(self.scale)
        return numbers if self.offset is None else numbers + self._spread(self.offset)

    def of_groups(self) -> tuple[F32, F32 | None]:
        """Of kinds nested: [N, groups] what codes are multiplied with, and their offsets if they have any. A float16
        times a byte is exact."""
        assert self.gamma is not None and self.encoding.is_nested
        offset = None
        if self.offset is not None and self.zero is not None:
            offset = self.zero.astype(np.float32) * self._of_nests(self.offset)
        return gamma_values(self.encoding)[self.gamma] * self._of_nests(self.scale), offset

    def _of_nests(self, numbers: F32) -> F32:
        """[N, nests] -> [N, groups]."""
        in_nest = NEST // (self.encoding.group or NEST)
        return np.repeat(numbers, in_nest, axis=1)[:, : self.encoding.num_groups(self.shape[1])]

    def _decode_nested(self) -> F32:
        scale, offset = self.of_groups()
        numbers = nested_numbers(self.encoding, self.codes) * self._spread(scale)
        return numbers if offset is None else numbers + self._spread(offset)

    def _spread(self, of_groups: F32) -> F32:
        """[N, groups] -> what broadcasts to [N, K]."""
        if of_groups.shape[1] == 1 or self.encoding.group is None:
            return of_groups
        return np.repeat(of_groups, self.encoding.group, axis=1)[:, : self.codes.shape[1]]


#: [16] the number of each code of IQ4_XS and IQ4_NL.
IQ4_NUMBERS = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], np.int8)
_IQ3_XXS = np.array([-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62], np.int8)
_IQ2, _IQ1 = np.array([0, -43, -25, -8, 8, 25, 43, 0], np.int8), np.array([-9, -7, -1, 1, 7, 9, 0, 0], np.int8)
#: Of kind nested table by name: the number of each code, and what gammas are multiplied with, a power of two.
NUMBERS = {
    "iq4_xs": (IQ4_NUMBERS, 1.0),
    "iq3_xxs": (_IQ3_XXS, 0.25),
    "iq3_s": (np.arange(-15, 16, 2, dtype=np.int8), 1.0),
    "iq2_xxs": (_IQ2, 0.125),
    "iq2_s": (_IQ2, 0.125),
    "iq1_s": (_IQ1, 0.125),
    "iq1_m": (_IQ1, 0.125),
}


def nested_zero(e: Encoding) -> int:
    """What is taken off the codes of kind nested."""
    return 1 << (e.bits - 1)


def nested_numbers(e: Encoding, codes: U8) -> F32:
    """What scales of kinds nested are multiplied with: whole numbers of 8 bits."""
    if e.kind == "nested table":
        return NUMBERS[e.name][0][codes].astype(np.float32)
    return codes.astype(np.float32) - np.float32(nested_zero(e) if e.kind == "nested" else 0)


def gamma_values(e: Encoding) -> F32:
    """[256] the number of each gamma of an encoding that has them."""
    if e.kind in ("progressive", "nested affine"):
        return np.arange(256, dtype=np.float32)
    if e.kind in ("nested", "nested table"):
        unit = NUMBERS[e.name][1] if e.kind == "nested table" else 1.0
        return np.arange(-128, 128, dtype=np.float32) * np.float32(unit)
    return e8m0_values() if e.group == 32 else e4m3_values()


def storable_scale(scale: F32) -> F32:
    """The nearest scales of kind integer that can be stored: 16 significant bits, ties to even; never 0 for a number
    that is not."""
    bits = np.ascontiguousarray(scale, np.float32).view(np.uint32)
    half = np.uint32((1 << (SCALE_SPARE_BITS - 1)) - 1)
    rounded = (bits + half + ((bits >> SCALE_SPARE_BITS) & np.uint32(1))) & np.uint32(
        ~((1 << SCALE_SPARE_BITS) - 1) & 0xFFFFFFFF
    )
    return rounded.view(np.float32)


#: [16] the number of each e2m1 code (OCP microscaling, 2023).
E2M1_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def e8m0_values() -> F32:
    """[256] the power of two of each e8m0 code; 0xff is NaN."""
    powers: F32 = np.ldexp(1.0, np.arange(-127, 128)).astype(np.float32)
    return np.append(powers, np.float32(np.nan))


def e2m1_codes(x: NDArray[np.floating[Any]]) -> U8:
    """The e2m1 codes of the nearest numbers, ties to even; beyond 6 the largest."""
    magnitude = np.minimum(np.abs(x), np.float32(6))
    fine, middle, coarse = np.rint(magnitude * 2), np.rint(magnitude) + 2, np.rint(magnitude / 2) + 4
    code = np.where(magnitude < 2, fine, np.where(magnitude < 4, middle, coarse)).astype(np.uint8)
    return np.asarray(code | np.where(np.signbit(x), 8, 0).astype(np.uint8), np.uint8)


def e4m3_values() -> F32:
    """[256] the number of each e4m3fn code (OCP 8-bit floating point, 2023); 0x7f and 0xff are NaN."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    small = np.ldexp(mantissa / 8.0, -6)
    numbers = np.where(exponent == 0, small, np.ldexp(1 + mantissa / 8.0, exponent - 7))
    numbers = np.where((code & 0x7F) == 0x7F, np.nan, numbers)
    return np.where(code & 0x80, -numbers, numbers).astype(np.float32)


def e4m3_codes(x: NDArray[np.floating[Any]]) -> U8:
    """The e4m3fn codes of the nearest numbers, ties to even; beyond 448 the largest. x: float32 or float64."""
    numbers = np.ascontiguousarray(x)
    # (bits of the mantissa, bias of the exponent) of the numbers; a code has 3 and 7
    whole, mantissa, bias = (np.uint32, 23, 127) if numbers.dtype == np.float32 else (np.uint64, 52, 1023)
    magnitude = np.abs(numbers)
    code: Any = magnitude.view(whole)
    shift, half = whole(mantissa - 3), whole((1 << (mantissa - 4)) - 1)
    code = (code + (half + ((code >> shift) & whole(1)))) >> shift
    least = whole((bias - 6) << 3)  # of 2^-6, the smallest normal number; below it lie multiples of 2^-9
    is_small = code < least
    code = np.minimum(np.where(is_small, least, code) - (least - whole(8)), whole(126)).astype(np.uint8)
    if is_small.any():
        code[is_small] = np.rint(magnitude[is_small] * numbers.dtype.type(512)).astype(np.uint8)
    return np.asarray(code | np.where(np.signbit(numbers), 0x80, 0).astype(np.uint8), np.uint8)
