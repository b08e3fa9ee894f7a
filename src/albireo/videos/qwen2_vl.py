"""Qwen2-VL and Qwen2.5-VL: a video is one grid of rows in three directions, of as many pixels a frame as are allowed.

Chat templates write <|vision_start|><|video_pad|><|vision_end|>; it is the middle that becomes rows. Called by
processor.py. A frame has its even share of the pixels that 90 % of max_video_tokens rows are made of, as the
reference implementation of these models (qwen-vl-utils) has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.images.qwen2_vl import nearest_size
from albireo.images.settings import CLIP_MEAN, CLIP_STD, Settings
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import HasSettings, VideoSettings, parse_video_settings

DEFAULTS = {
    "patch_size": 14,
    "shortest_edge": 128 * 28 * 28,
    "longest_edge": 768 * 28 * 28,
    "max_video_tokens": 128_000,
}
_SHARE = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class Qwen2VLVideo(HasSettings):
    """See VideoProcessor. Fields: steps_per_s: on the axis of time; None: each tile is one."""

    settings: VideoSettings
    steps_per_s: float | None

    mark = row_token = "<|video_pad|>"
    around = None

    @classmethod
    def read(cls, settings: Settings) -> Qwen2VLVideo:
        """Raises: ModelError, UnsupportedModel."""
        found = parse_video_settings(settings, "Qwen2VLVideoProcessor", CLIP_MEAN, CLIP_STD, DEFAULTS)
        has_steps = settings.model.raw("model_type") == "qwen2_5_vl"
        return cls(found, settings.tower.number("tokens_per_second", 0.0, 1e6, 4) if has_steps else None)

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """So many a second, evenly, in whole tiles; of few frames all."""
        s, total = self.settings, footage.num_frames
        most = min(s.most_frames, total) // s.frames * s.frames
        wanted = min(max(total / footage.rate * s.fps, s.fewest_frames), most)
        count = int(wanted) // s.frames * s.frames
        return tuple(int(n * total / count) for n in range(count)) if count else tuple(range(total))

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        s = self.settings
        most = s.most
        if s.max_tokens is not None:
            share = int(s.max_tokens * s.step**2 * _SHARE) * s.frames // num_frames
            most = max(min(most, share), int(s.fewest * 1.05))
        return nearest_size(height, width, s.step, s.fewest, most)

    def prepare(self, frames: Frames) -> PreparedVideo:
        s, footage = self.settings, frames.footage
        height, width = self.size(len(frames.images), footage.height, footage.width)
        tiles = s.tiles(frames.images, height, width)
        text = self.row_token * self.num_rows(len(frames.images), height, width)
        return PreparedVideo(tiles, text, s.rows(height, width), self._times(len(tiles), frames))

    def largest_tile(self) -> tuple[int, int]:
        step = self.settings.step
        most = max(self.settings.most, int(self.settings.fewest * 1.05))
        return step, step * max(1, most // step**2)

    def _times(self, num_tiles: int, frames: Frames) -> tuple[int, ...]:
        if self.steps_per_s is None:
            return tuple(range(num_tiles))
        seconds = self.settings.frames * frames.footage.num_frames / frames.footage.rate / len(frames.images)
        return tuple(int(n * self.steps_per_s * seconds) for n in range(num_tiles))
