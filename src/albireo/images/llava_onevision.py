"""LlavaOnevision: pictures as LlavaNext has them, whose rows are fewer than its patches where there are many.

Called by processor.py. Each picture is read as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.errors import ModelError
from albireo.images.llava_next import LlavaNext, Size, sizes_of
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.models.vision.llava_onevision import most_blocks
from albireo.models.vision.mosaic import shrunk

_CLASSES = ("LlavaOnevisionImageProcessor",)
#: On either side.
_MOST_BLOCKS = 6


@dataclass(frozen=True, slots=True, eq=False)
class LlavaOnevision(LlavaNext):
    """See ImageProcessor. Fields: most: blocks whose rows are as many as their patches."""

    most: int

    @classmethod
    def read(cls, settings: Settings) -> LlavaOnevision:
        """Raises: ModelError, UnsupportedModel."""
        image, processor, tower = settings.image, settings.processor, settings.tower
        block, width = settings.size("height", "width", default=384)
        if width != block:
            image.unsupported("size", image.raw("size"), "blocks are squares")
        settings.require_agreement(image, "size", block, tower, "image_size")
        side = block // tower.integer("patch_size", 1, MAX_STEP, 16)
        settings.require_rows(processor, "num_image_tokens", side**2, side**2, block)
        most = most_blocks(processor)
        if most != most_blocks(settings.model):
            raise ModelError(
                f"{processor.where}: vision_aspect_ratio is not that of {settings.model.where}; both must be of one "
                "checkpoint"
            )
        steps = [block * count for count in range(1, _MOST_BLOCKS + 1)]
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD),
            block,
            side,
            sizes_of(settings, block, [[high, wide] for high in steps for wide in steps]),
            processor.text("image_token", "<image>"),
            most,
        )
        strategy = processor.text("vision_feature_select_strategy", "full")
        if strategy != "full":
            processor.unsupported("vision_feature_select_strategy", strategy, "supported: full, all patches")
        settings.refuse_unread(("video_token", "aspect_ratio_setting"))
        return found

    def shrunk(self, grid: Size) -> Size:
        return shrunk(grid, self.side, self.most)
