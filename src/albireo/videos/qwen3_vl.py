"""Qwen3-VL and Qwen3.5: a video is a sequence of moments, each told in words and shown as a picture is.

Chat templates write <|vision_start|><|video_pad|><|vision_end|>, all three of which give way to
<1.5 seconds><|vision_start|>…<|vision_end|> for each two frames. Called by processor.py. A frame has at most
max_video_tokens rows, and its even share of the video's pixels, as the reference implementation of these models
(qwen-vl-utils) has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from albireo.errors import InvalidParams
from albireo.images.qwen2_vl import MAX_RATIO
from albireo.images.settings import HALF, Settings
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import HasSettings, VideoSettings, parse_video_settings

_DEFAULTS = {
    "patch_size": 16,
    "shortest_edge": 128 * 32 * 32,
    "longest_edge": 768 * 32 * 32,
    "max_video_tokens": 768,
}


@dataclass(frozen=True, slots=True, eq=False)
class Qwen3VLVideo(HasSettings):
    """See VideoProcessor. Of the settings' pixels fewest and most are those of a video, in all its frames."""

    settings: VideoSettings

    mark = row_token = "<|video_pad|>"
    around = ("<|vision_start|>", "<|vision_end|>")

    @classmethod
    def read(cls, settings: Settings) -> Qwen3VLVideo:
        """Raises: ModelError, UnsupportedModel."""
        return cls(parse_video_settings(settings, "Qwen3VLVideoProcessor", HALF, HALF, _DEFAULTS))

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """So many a second, evenly, the first and the last among them."""
        s, total = self.settings, footage.num_frames
        count = min(max(int(total / footage.rate * s.fps), s.fewest_frames), s.most_frames, total)
        return tuple(int(n) for n in np.linspace(0, total - 1, count).round())

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        s = self.settings
        # one frame alone is there twice
        num_frames, most = max(num_frames, s.frames), s.most
        if s.max_tokens is not None:
            each = max(min(s.max_tokens * s.step**2, most // num_frames), int(s.fewest * 1.05))
            most = each * num_frames
        if min(height, width) < s.step:
            scale = max(s.step / height, s.step / width)
            height, width = int(height * scale), int(width * scale)
        if max(height, width) > MAX_RATIO * min(height, width):
            raise InvalidParams(
                f"a video of {width} x {height} pixels is too long in one direction: at most {MAX_RATIO} to 1 is read"
            )
        tall, wide = (round(side / s.step) * s.step for side in (height, width))
        # of an odd number of frames half a tile is neither here nor there
        pixels = round(num_frames / s.frames) * s.frames * tall * wide
        if pixels > most:
            scale = math.sqrt(num_frames * height * width / most)
            tall, wide = (max(s.step, math.floor(side / scale / s.step) * s.step) for side in (height, width))
        elif pixels < s.fewest:
            scale = math.sqrt(s.fewest / (num_frames * height * width))
            tall, wide = (math.ceil(side * scale / s.step) * s.step for side in (height, width))
        return tall, wide

    def prepare(self, frames: Frames) -> PreparedVideo:
        s, footage = self.settings, frames.footage
        height, width = self.size(len(frames.images), footage.height, footage.width)
        tiles = s.tiles(frames.images, height, width)
        lines, columns = s.rows(height, width)
        shown = f"{self.around[0]}{self.row_token * (lines * columns)}{self.around[1]}"
        text = "".join(f"<{moment:.1f} seconds>{shown}" for moment in self._moments(frames))
        return PreparedVideo(tiles, text, (lines, columns))

    def largest_tile(self) -> tuple[int, int]:
        s = self.settings
        each = s.most // s.frames
        if s.max_tokens is not None:
            each = max(min(s.max_tokens * s.step**2, each), int(s.fewest * 1.05))
        return s.step, s.step * max(1, each // s.step**2)

    def _moments(self, frames: Frames) -> list[float]:
        """Of each tile the middle between its first frame and its last, in seconds."""
        count, numbers = self.settings.frames, list(frames.numbers)
        numbers += numbers[-1:] * (-len(numbers) % count)
        seconds = [number / frames.footage.rate for number in numbers]
        return [(seconds[n] + seconds[n + count - 1]) / 2 for n in range(0, len(seconds), count)]
