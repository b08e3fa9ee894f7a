"""Kimi K2.5 in transformers' format: a video is clips of up to four frames, each behind the time that it begins at and
of as many rows as one frame has.

Chat templates write <|kimi_k25_video_placeholder|>, which all of its rows are. A clip is one tile, whose frames lie one
above another: it is as many pixels wider than these as there are further frames. Rows and colours are those of
pictures. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import UnsupportedModel
from albireo.images.kimi_k25 import KimiK25
from albireo.images.pixels import array, scaled_at_once
from albireo.images.settings import BICUBIC, HALF, MAX_STEP, Settings
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, check_colours, refuse_unread

_MAX_PATCHES = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class KimiK25Video:
    """See VideoProcessor. Fields: picture: how large a frame becomes. most: frames of a clip. fps: frames a second that
    are read, or count of a video where it is not 0."""

    picture: KimiK25
    most: int
    fps: float
    count: int

    mark = row_token = "<|kimi_k25_video_placeholder|>"
    around = None

    @classmethod
    def read(cls, settings: Settings) -> KimiK25Video:
        """Raises: ModelError, UnsupportedModel."""
        said = settings.image
        path = Path(settings.model.where).parent / "tokenizer.json"
        if not path.exists() or f'"{cls.mark}"'.encode() not in path.read_bytes():
            raise UnsupportedModel(f"{path}: has no token {cls.mark}, so no place in a prompt is one of a video")
        check_colours(settings)
        longest, wide = settings.size("max_height", "max_width", default=512)
        if longest != wide:
            said.unsupported("size", said.raw("size"), "as many patches are allowed on either side")
        picture = KimiK25(
            settings.pixels(
                ("Kimi_K25VideoProcessor",), BICUBIC, HALF, HALF, scaled_at_once, type_key="video_processor_type"
            ),
            patch=said.integer("patch_size", 1, MAX_STEP, 14),
            merge=said.integer("merge_size", 1, MAX_STEP, 2),
            most=said.integer("max_patches", 1, _MAX_PATCHES, 4096),
            longest=longest,
        )
        settings.require_agreement(said, "patch_size", picture.patch, settings.tower, "patch_size")
        merged = settings.tower.raw("merge_kernel_size")
        if merged not in (None, [picture.merge] * 2):
            said.fail("merge_size", picture.merge, f"must be that of config.json, merge_kernel_size={merged}")
        if longest % picture.merge:
            said.fail("size", longest, f"must be a multiple of merge_size={picture.merge}, in patches")
        frames = said.integer("temporal_patch_size", 1, MAX_STEP, 4)
        told = settings.tower.integer("pos_emb_time", 1, MAX_STEP, 4)
        if frames > told:
            said.fail("temporal_patch_size", frames, f"must be at most pos_emb_time={told} of config.json")
        count = said.optional_integer("num_frames", 1, MAX_FRAMES)
        found = cls(picture, frames, said.optional_number("fps", 1e-3, 1e3) or 2.0, count or 0)
        refuse_unread(said, ())
        return found

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """Evenly, from the first on; of few all."""
        total = footage.num_frames
        count = min(max(self.count or int(total / footage.rate * self.fps), 1), total)
        return tuple(n * total // count for n in range(count))

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        return self.picture.size_of(height, width)

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return -(-num_frames // self.most) * self.picture.rows(*self._filled(height, width))

    def _filled(self, height: int, width: int) -> tuple[int, int]:
        """With the last blocks filled up."""
        step = self.picture.patch * self.picture.merge
        return -(-height // step) * step, -(-width // step) * step

    def prepare(self, frames: Frames) -> PreparedVideo:
        picture, footage = self.picture, frames.footage
        height, width = picture.size_of(footage.height, footage.width)
        filled, step = self._filled(height, width), picture.patch * picture.merge
        tiles, text = [], ""
        for first in range(0, len(frames.images), self.most):
            shown = frames.images[first : first + self.most]
            tile = np.zeros((len(shown), filled[0], filled[1] + len(shown) - 1, 3), np.uint8)
            for frame, image in zip(tile, shown, strict=True):
                frame[:height, :width] = array(picture.pixels.resized(image, height, width))
            tiles.append(tile.reshape(-1, *tile.shape[2:]))
            rows = self.row_token * picture.rows(*filled)
            at = frames.numbers[first] / footage.rate
            text += f"{_told(at)}<|media_begin|>video<|media_content|>{rows}<|media_end|>"
        return PreparedVideo(tuple(tiles), text, (filled[0] // step, filled[1] // step))

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.picture.normalized(tile)

    def largest_tile(self) -> tuple[int, int]:
        height, width = self.picture.largest_tile()
        return height * self.most, width + self.most - 1


def _told(at: float) -> str:
    """Hours, minutes, seconds and thousandths."""
    seconds = int(at)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{int(at % 1 * 1000):03d}"
