"""Gemma 4: a video is so many frames of it, each behind the minute and second that it is of, and shown as a picture is,
with fewer rows.

Chat templates write <|video|> for a video, which all of its rows are. Colours are those of pictures. Called by
processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import UnsupportedModel
from albireo.images.gemma4 import BEGIN, END, Gemma4
from albireo.images.pixels import Pixels, array, scaled_first
from albireo.images.settings import BICUBIC, IMAGE_FILE, MAX_ROWS, MAX_STEP, Settings
from albireo.json_file import Fields, read_json
from albireo.videos.decode import Footage, Frames
from albireo.videos.footage import evenly
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, refuse_unread

_CLASSES = {"gemma4": "Gemma4VideoProcessor", "gemma4_unified": "Gemma4UnifiedVideoProcessor"}
#: Colours as they are.
_MEAN, _STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Gemma4Video:
    """See VideoProcessor. Fields: picture: how a frame becomes a tile. count: frames of a video; fps: or so many a
    second, where it is not 0."""

    picture: Gemma4
    count: int
    fps: float

    mark = row_token = "<|video|>"
    around = None

    @classmethod
    def read(cls, settings: Settings) -> Gemma4Video:
        """Raises: ModelError, UnsupportedModel."""
        said, directory = settings.image, Path(settings.model.where).parent
        _check_mark(directory)
        pictures: Any = settings.processor.table("image_processor")
        if pictures is None and (directory / IMAGE_FILE).exists():
            pictures = read_json(directory / IMAGE_FILE)
        for fields in (said, Fields(pictures or {}, f"{said.where}: of pictures")):
            _check_colours(fields)
        kind = _CLASSES[str(settings.model.raw("model_type"))]
        # what becomes of colours is asked above
        filter = settings.pixels((kind,), BICUBIC, _MEAN, _STD, type_key="video_processor_type").filter
        patch = said.integer("patch_size", 1, MAX_STEP, 16)
        pooled = said.integer("pooling_kernel_size", 1, MAX_STEP, 3)
        settings.require_agreement(said, "patch_size", patch, settings.tower, "patch_size")
        settings.require_agreement(said, "pooling_kernel_size", pooled, settings.tower, "pooling_kernel_size")
        most = said.integer("max_soft_tokens", 1, MAX_ROWS, 70)
        fps, count = said.optional_number("fps", 1e-3, 1e3), said.optional_integer("num_frames", 1, MAX_FRAMES)
        # seconds count where a file says that frames do not
        by_seconds = fps is not None and count is None and said.has("num_frames")
        refuse_unread(said, ("size",), {"do_normalize": (True, False)})
        picture = Gemma4(Pixels(filter, scaled_first(1 / 255, _MEAN, _STD)), patch * pooled, most)
        return cls(picture, count or 32, fps if fps is not None and by_seconds else 0.0)

    def choose(self, footage: Footage) -> tuple[int, ...]:
        return evenly(footage, self.fps, self.count)

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        return self.picture.size_of(height, width)

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return num_frames * self.picture.rows(height, width)

    def prepare(self, frames: Frames) -> PreparedVideo:
        footage, step = frames.footage, self.picture.step
        height, width = self.picture.size_of(footage.height, footage.width)
        tiles = tuple(array(self.picture.pixels.resized(image, height, width)) for image in frames.images)
        rows = f"{BEGIN}{self.row_token * self.picture.rows(height, width)}{END}"
        seconds = [number / footage.rate for number in frames.numbers]
        text = " ".join(f"{int(each // 60):02d}:{int(each % 60):02d} {rows}" for each in seconds)
        return PreparedVideo(tiles, text, (height // step, width // step))

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.picture.normalized(tile)

    def largest_tile(self) -> tuple[int, int]:
        return self.picture.largest_tile()


def _check_colours(fields: Fields) -> None:
    """Raises: UnsupportedModel where colours are not as they are: what is behind here tells no frame from a picture."""
    if not fields.flag("do_normalize", False):
        return
    for key, plain in (("image_mean", _MEAN), ("image_std", _STD)):
        given = fields.raw(key)
        if given is not None and tuple(given) != plain:
            fields.unsupported(key, given, f"with videos: {list(plain)}, colours as they are")


def _check_mark(directory: Path) -> None:
    """Raises: UnsupportedModel where the tokenizer has no token for a video, so that pictures are read all the same."""
    path = directory / "tokenizer.json"
    if not path.exists() or f'"{Gemma4Video.mark}"'.encode() not in path.read_bytes():
        raise UnsupportedModel(f"{path}: has no token {Gemma4Video.mark}, so no place in a prompt is one of a video")
