"""MiniMax M3: a video is moments of two frames, each told in words and shown as a picture is, of which up to four see
each other.

Chat templates write ]<]video[>[ for a video, which all of its rows are. What sees each other is one tile, whose moments
lie one above another: it is as many pixels wider than these as there are further moments. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import UnsupportedModel
from albireo.images.minimax_m3_vl import END, START
from albireo.images.pixels import Pixels, scaled_at_once
from albireo.images.qwen2_vl import nearest_size
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.json_file import Fields, keys
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, HasSettings, VideoSettings, refuse_unread

_MAX_PIXELS = 2**40
#: What files say of sizes, and nobody ever meant; of a rule that transformers does not follow; of pictures.
_NEVER_MEANT = keys("size total_pixels min_frames image_processor_type img_token_compression_config")


@dataclass(frozen=True, slots=True, eq=False)
class MiniMaxM3Video(HasSettings):
    """See VideoProcessor. Fields: most: moments that see each other. count: frames of a video; 0: as fps says."""

    settings: VideoSettings
    most: int
    count: int

    mark = row_token = "]<]video[>["
    around = None

    @classmethod
    def read(cls, settings: Settings) -> MiniMaxM3Video:
        """Raises: ModelError, UnsupportedModel."""
        said = settings.image
        _check_mark(Path(settings.model.where).parent)
        pixels: Pixels = settings.pixels(
            ("MiniMaxM3VLVideoProcessor",),
            BICUBIC,
            CLIP_MEAN,
            CLIP_STD,
            scaled_at_once,
            type_key="video_processor_type",
        )
        patch, merge = said.integer("patch_size", 1, MAX_STEP, 14), said.integer("merge_size", 1, MAX_STEP, 2)
        frames = said.integer("temporal_patch_size", 2, MAX_STEP, 2)
        found = VideoSettings(
            pixels,
            patch,
            merge,
            frames,
            said.integer("min_pixels", 1, _MAX_PIXELS, 4 * 28 * 28),
            said.integer("max_pixels", 1, _MAX_PIXELS, 768 * 28 * 28),
            said.optional_number("fps", 1e-3, 1e3) or 1.0,
            1,
            said.integer("max_frames", 1, MAX_FRAMES, 768),
            None,
        )
        part = Fields(settings.tower.table("img_token_compression_config") or {}, f"{settings.tower.where}: of patches")
        for key, value, name in (
            ("temporal_patch_size", frames, "temporal_patch_size"),
            ("merge_size", merge, "spatial_merge_size"),
        ):
            for of_model in (settings.tower, part):
                settings.require_agreement(said, key, value, of_model, name)
        settings.require_agreement(said, "patch_size", patch, settings.tower, "patch_size")
        most = said.integer("vision_segment_max_frames", 1, MAX_STEP, 4)
        seen = settings.tower.integer("vision_segment_max_frames", 1, 2**16, 4)
        if most > min(seen, found.step):
            said.fail(
                "vision_segment_max_frames", most, f"must be at most {min(seen, found.step)}, as config.json has it"
            )
        count = said.optional_integer("num_frames", 1, MAX_FRAMES)
        refuse_unread(said, _NEVER_MEANT)
        return cls(found, most, count or 0)

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """So many a second, evenly, from the first on; of few all."""
        total, s = footage.num_frames, self.settings
        count = self.count or min(int(total / footage.rate * s.fps), s.most_frames)
        count = min(max(count, 1), total)
        return tuple(n * total // count for n in range(count))

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        s = self.settings
        return nearest_size(height, width, s.step, s.fewest, s.most)

    def prepare(self, frames: Frames) -> PreparedVideo:
        s, footage = self.settings, frames.footage
        height, width = self.size(len(frames.images), footage.height, footage.width)
        moments = s.tiles(frames.images, height, width)
        tiles = [_together(moments[first : first + self.most]) for first in range(0, len(moments), self.most)]
        lines, columns = s.rows(height, width)
        shown = f"{START}{self.row_token * (lines * columns)}{END}"
        seconds = (number / footage.rate for number in frames.numbers[:: s.frames])
        text = "".join(f"]<]{at:.1f} seconds[>[{shown}" for at in seconds)
        counts = tuple(min(self.most, len(moments) - first) for first in range(0, len(moments), self.most))
        return PreparedVideo(tuple(tiles), text, (lines, columns), counts=counts)

    def largest_tile(self) -> tuple[int, int]:
        s = self.settings
        return s.step * self.most, s.step * max(1, s.most // s.step**2) + self.most - 1


def _together(moments: tuple[NDArray[np.uint8], ...]) -> NDArray[np.uint8]:
    """One above another, and as many pixels wider as there are further ones."""
    return np.pad(np.concatenate(moments), ((0, 0), (0, len(moments) - 1), (0, 0)))


def _check_mark(directory: Path) -> None:
    """Raises: UnsupportedModel where the tokenizer has no token for a video, so that pictures are read all the same."""
    path, mark = directory / "tokenizer.json", MiniMaxM3Video.mark
    if not path.exists() or f'"{mark}"'.encode() not in path.read_bytes():
        raise UnsupportedModel(f"{path}: has no token {mark}, so no place in a prompt is one of a video")
