"""InternVL: a video is so many frames of it, each one square tile behind its number.

Chat templates write <video>, or what else tokenizer_config.json calls it, which becomes Frame1: <img>…</img>, a line
for each. Rows and colours are those of pictures. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albireo.errors import UnsupportedModel
from albireo.images.internvl import END, START, InternVL, one_of
from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, Settings
from albireo.json_file import keys, read_json
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, USUAL_FRAMES, check_colours, refuse_unread


@dataclass(frozen=True, slots=True, eq=False)
class InternVLVideo(HasSquares):
    """See VideoProcessor.

    Fields: side: of a tile, and rows: on a side of it. count: frames of a video; fps: or so many a second, where it is
        not 0. shift: frames before the first; None: half of how far they are apart.
    """

    pixels: Pixels
    side: int
    rows: int
    count: int
    fps: float
    shift: float | None
    mark: str

    row_token, around = InternVL.image_token, None

    @classmethod
    def read(cls, settings: Settings) -> InternVLVideo:
        """Raises: ModelError, UnsupportedModel."""
        said, model = settings.image, settings.model
        side = one_of(settings.tower, "image_size", 448)
        # where there is no file of its own, pictures say how large one is
        height, width = settings.size("height", "width", default=side)
        if (height, width) != (side, side):
            said.fail("size", said.raw("size"), f"must be the {side} x {side} pixels of config.json's tower")
        directory = Path(model.where).parent
        check_colours(settings)
        shift = said.raw("initial_shift")
        if shift in (None, True):
            shift = None
        elif isinstance(shift, bool) or not isinstance(shift, (int, float)) or not 0 <= shift < 2**31:
            said.unsupported("initial_shift", shift, "supported: true, and a number of frames")
        fps = said.optional_number("fps", 1e-3, 1e3)
        count = said.optional_integer("num_frames", 1, MAX_FRAMES)
        found = cls(
            settings.pixels(("InternVLVideoProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD, type_key="video_processor_type"),
            side,
            int(side // one_of(settings.tower, "patch_size", 14) * model.number("downsample_ratio", 1 / 16, 1.0, 0.5)),
            count or USUAL_FRAMES,
            0.0 if fps is None or count is not None else fps,
            shift,
            _mark(directory),
        )
        # copied from the file of pictures
        refuse_unread(said, keys("initial_shift image_processor_type crop_to_patches min_patches max_patches"))
        return found

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """Evenly, from the middle of their parts of the video; of few frames all."""
        total = footage.num_frames
        count = int(total / footage.rate * self.fps) if self.fps else self.count
        apart = total / min(max(count, 1), total)
        first = apart / 2 if self.shift is None else min(self.shift, total - 1)
        return tuple(dict.fromkeys(int(n) for n in np.arange(first, total, apart)))

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        return self.side, self.side

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return num_frames * self.rows**2

    def prepare(self, frames: Frames) -> PreparedVideo:
        tiles = tuple(array(self.pixels.resized(image, self.side, self.side)) for image in frames.images)
        rows = f"{START}{self.row_token * self.rows**2}{END}"
        text = "\n".join(f"Frame{number}: {rows}" for number in range(1, len(tiles) + 1))
        return PreparedVideo(tiles, text, (self.rows, self.rows))


def _mark(directory: Path) -> str:
    """What stands for a video in a prompt. Raises: UnsupportedModel where the tokenizer does not know."""
    path = directory / "tokenizer_config.json"
    said: Any = read_json(path) if path.exists() else {}
    for table in (said, said.get("extra_special_tokens"), said.get("model_specific_special_tokens")):
        token = table.get("video_token") if isinstance(table, dict) else None
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str) and token:
            return token
    raise UnsupportedModel(f"{path}: has no video_token, so no place in a prompt is one of a video")
