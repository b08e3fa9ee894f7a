"""LLaVA-OneVision: a video is so many frames of it, each one square block whose rows are a quarter of its patches; one
row more is behind the last.

Chat templates write <video>, which all of its rows are. Colours are those of pictures. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.json_file import keys
from albireo.models.vision.llava_onevision import BEHIND_LAST, side_of_frames
from albireo.videos.decode import Footage, Frames
from albireo.videos.footage import evenly
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, USUAL_FRAMES, check_colours, refuse_unread


@dataclass(frozen=True, slots=True, eq=False)
class LlavaOnevisionVideo(HasPixels):
    """See VideoProcessor. Fields: block: pixels on the side of a frame. side: rows on it. count: frames of a video;
    fps: or so many a second, where it is not 0."""

    pixels: Pixels
    block: int
    side: int
    count: int
    fps: float

    mark = row_token = "<video>"
    around = None

    @classmethod
    def read(cls, settings: Settings) -> LlavaOnevisionVideo:
        """Raises: ModelError, UnsupportedModel."""
        said, tower = settings.image, settings.tower
        block = tower.integer("image_size", 1, 2**14, 384)
        # where there is no file of its own, pictures say how large one is
        height, width = settings.size("height", "width", default=block)
        if (height, width) != (block, block):
            said.fail("size", said.raw("size"), f"must be the {block} x {block} pixels of config.json's tower")
        check_colours(settings)
        fps, count = said.optional_number("fps", 1e-3, 1e3), said.optional_integer("num_frames", 1, MAX_FRAMES)
        kind = ("LlavaOnevisionVideoProcessor",)
        found = cls(
            settings.pixels(kind, BICUBIC, CLIP_MEAN, CLIP_STD, type_key="video_processor_type"),
            block,
            side_of_frames(block // tower.integer("patch_size", 1, MAX_STEP, 16)),
            count or USUAL_FRAMES,
            0.0 if fps is None or count is not None else fps,
        )
        # copied from the file of pictures
        refuse_unread(said, keys("image_processor_type image_grid_pinpoints"), {"do_center_crop": (False,)})
        return found

    def choose(self, footage: Footage) -> tuple[int, ...]:
        return evenly(footage, self.fps, self.count)

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        return self.block, self.block

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return num_frames * self.side**2 + 1

    def prepare(self, frames: Frames) -> PreparedVideo:
        """See VideoProcessor. The last tile is wider by what tells the tower that it is the last."""
        tiles = [array(self.pixels.resized(image, self.block, self.block)) for image in frames.images]
        tiles[-1] = np.pad(tiles[-1], ((0, 0), (0, BEHIND_LAST), (0, 0)))
        text = self.row_token * self.num_rows(len(tiles), self.block, self.block)
        return PreparedVideo(tuple(tiles), text, (self.side, self.side), behind=1)

    def largest_tile(self) -> tuple[int, int]:
        return self.block, self.block + BEHIND_LAST
