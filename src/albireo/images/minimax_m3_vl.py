"""MiniMaxM3: MiniMax M3. A picture is one tile, of as many pixels as are allowed, between marks.

Chat templates write ]<]image[>[ for a picture, which all of its rows are. Called by processor.py. Positions of its text
part are numbers. Pictures are resized by Pillow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from albireo.images.pixels import scaled_at_once
from albireo.images.prepared import PreparedImage
from albireo.images.qwen2_vl import Qwen2VL
from albireo.images.settings import MAX_STEP, Settings
from albireo.json_file import Fields, keys

if TYPE_CHECKING:
    from PIL import Image

START, END = "]<]start of image[>[", "]<]end of image[>["
#: Where published files say again how patches become rows, and what else they say of that.
_PART = "img_token_compression_config"
_OF_PART = keys("image_token_compression_threshold max_image_resolution")
#: What published files say of sizes, and nobody ever meant.
_NEVER_MEANT = [672, 672]


@dataclass(frozen=True, slots=True, eq=False)
class MiniMaxM3(Qwen2VL):
    """See ImageProcessor."""

    image_token = placeholder = "]<]image[>["
    classes: ClassVar[tuple[str, ...]] = ("MiniMaxM3VLImageProcessor",)
    default_pixels: ClassVar[tuple[int, int]] = (4 * 28 * 28, 451584)
    table = staticmethod(scaled_at_once)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "add_start_end_special_tokens": (True,),
        "process_image_mode": ("dynamic_res",),
    }

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        part = settings.image.table(_PART)
        found = super(MiniMaxM3, cls).read(settings)
        if part is not None:
            said = Fields(part, f"{settings.image.where}: {_PART}")
            for key, value in (("spatial_merge_size", found.merge), ("temporal_patch_size", found.frames)):
                if said.integer(key, 1, MAX_STEP, value) != value:
                    said.fail(key, said.raw(key), f"must be {value}, as the file says beside it")
            said.refuse_unread(_OF_PART, {"image_token_compression_method": ("patch_merge",)})
        return found

    @classmethod
    def said_size(cls, image: Fields) -> dict[str, Any] | None:
        return None if image.raw("size") == _NEVER_MEANT else image.table("size")

    def prepare(self, image: Image.Image) -> PreparedImage:
        prepared = super(MiniMaxM3, self).prepare(image)
        return replace(prepared, text=f"{START}{prepared.text}{END}")
