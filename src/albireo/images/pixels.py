"""Pixels: how a family resizes pictures, and what numbers become of colours.

Called by the families. Numbers are bit for bit those of transformers: of a tile of uint8 they depend on channel and
value alone, so all 3 x 256 are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams

if TYPE_CHECKING:
    from PIL import Image

#: Of what a picture or a frame is resized to, cut into tiles or not: 96 MiB as it lies, 384 MiB as a tower computes it.
#: The most that a published file asks for is 16.8 million.
MAX_PIXELS = 2**25
_VALUES = np.arange(256)[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """Fields: filter: of resizing, as Pillow numbers them. table: float32 [256, 3], what values of channels become."""

    filter: int
    table: NDArray[np.float32]

    def resized(self, image: Image.Image, height: int, width: int) -> Image.Image:
        """Raises: InvalidParams where that is more than MAX_PIXELS, as a file of the model wants."""
        if height * width > MAX_PIXELS:
            raise InvalidParams(
                f"a picture of {image.width} x {image.height} pixels would become {width} x {height}, as "
                f"preprocessor_config.json of the model has it; at most {MAX_PIXELS:,} pixels are computed"
            )
        return image.resize((width, height), self.filter)

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [H, W, 3] -> float32 [H, W, 3]; of several frames [H, W, 3 of each]."""
        channels = range(tile.shape[-1])
        return np.stack([self.table[:, channel % 3][tile[..., channel]] for channel in channels], axis=-1)


class HasPixels:
    """Of a processor whose tiles become numbers by the table of its pixels."""

    __slots__ = ()
    pixels: Pixels

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.pixels.normalized(tile)


class HasSquares(HasPixels):
    """Of one whose tiles are squares of one size. Fields: side: of a tile."""

    __slots__ = ()
    side: int

    def largest_tile(self) -> tuple[int, int]:
        return self.side, self.side


def scaled_first(factor: float, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """A table: value · factor in float64, rounded, then less mean and by std, in float32."""
    scaled = (_VALUES.astype(np.float64) * factor).astype(np.float32)
    return _centred(scaled, np.array(mean, np.float32), np.array(std, np.float32))


def scaled_at_once(factor: float, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """A table: mean and std divided by factor, then value less mean and by std, all in float32."""
    inverse = np.float32(1.0 / factor)
    values = _VALUES.astype(np.float32)
    return _centred(values, np.array(mean, np.float32) * inverse, np.array(std, np.float32) * inverse)


def scaled_in_bfloat16(factor: float, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
    """A table: value · factor, then less mean and by std, each rounded to bfloat16."""
    less, by = (_bfloat16(np.array(each, np.float32)) for each in (mean, std))
    scaled = _bfloat16(_VALUES.astype(np.float32) * np.float32(factor))
    return _bfloat16(_bfloat16(scaled - less) / by)


def _bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest that have 8 bits, of two the even one."""
    bits = numbers.view(np.uint32)
    odd = (bits >> 16) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)).view(np.float32)


def _centred(values: NDArray[np.float32], mean: NDArray[np.float32], std: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = (values - mean) / std
    return result


def array(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]."""
    return np.asarray(image, np.uint8)
