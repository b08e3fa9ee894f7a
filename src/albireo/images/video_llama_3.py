"""VideoLlama3: VideoLLaMA 3. A picture is one tile, of as many pixels as are allowed, each of whose patches is a row.

Called by processor.py. Positions of its text part are numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from albireo.images.qwen2_vl import OfOneFrame
from albireo.images.settings import HALF, Settings


@dataclass(frozen=True, slots=True, eq=False)
class VideoLlama3(OfOneFrame):
    """See ImageProcessor."""

    classes: ClassVar[tuple[str, ...]] = ("VideoLlama3ImageProcessor",)
    default_colours = (HALF, HALF)
    default_merge: ClassVar[int] = 1

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        found = super(VideoLlama3, cls).read(settings)
        if found.merge != 1:
            settings.image.unsupported("merge_size", found.merge, "supported: 1, a row of each patch of a picture")
        return found
