"""Videos of a prompt, put in their places.

Called by media.py. Which frames are read, and how, is albireo.videos, where they come from albireo.media.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.api.media.places import Place, Standing
from albireo.config import EngineConfig
from albireo.errors import InvalidParams
from albireo.image_input import GivenVideo, MediaKind, Tile
from albireo.json_file import read_json
from albireo.media.medium import VIDEO
from albireo.media.sources import MediaSources
from albireo.models.settings.text_part import inner
from albireo.videos.decode import Footage, as_video
from albireo.videos.prepared import WritesProse
from albireo.videos.processor import VideoProcessor, open_video_processor


class VideoPlace(Place):
    """See Place."""

    kind: MediaKind = "video"

    def __init__(
        self, processor: VideoProcessor, opened: Callable[[Any], Any], max_rows: int, most: int | None = None
    ) -> None:
        """Args:
        opened: what a caller means by an address; the bytes of a video, or its frames, stay as they are.
        max_rows: tokens that a prompt has room for, which is asked before a frame is decoded.
        """
        super().__init__(processor.mark, processor.row_token, most)
        self.around = processor.around
        self.chat_template = processor.chat_template if isinstance(processor, WritesProse) else None
        self._processor, self._opened, self._max_rows = processor, opened, max_rows

    def standing(self, given: GivenVideo) -> Standing:
        counts: list[int] = []

        def choose(footage: Footage) -> tuple[int, ...]:
            numbers = self._processor.choose(footage)
            counts.append(len(numbers))
            return numbers

        def shrink(footage: Footage) -> tuple[int, int]:
            # nobody is asked where a caller has chosen already
            return self._shrunk(footage, counts[-1] if counts else footage.num_frames)

        frames = as_video(self._opened(given.value), choose, shrink=shrink)
        prepared = self._processor.prepare(frames)
        tiles = tuple(self._tile(tile, rows) for tile, rows in zip(prepared.tiles, prepared.rows, strict=True))
        is_prose = isinstance(self._processor, WritesProse) and self._processor.is_prose
        return Standing(prepared.text, tiles, prepared.grid, prepared.times, is_prose=is_prose)

    def _shrunk(self, footage: Footage, num_frames: int) -> tuple[int, int]:
        """Width and height that frames are read with. Raises: InvalidParams when the context is too short for them."""
        processor = self._processor
        height, width = processor.size(num_frames, footage.height, footage.width)
        num_rows = processor.num_rows(num_frames, height, width)
        if num_rows > self._max_rows:
            raise InvalidParams(
                f"a video of {footage.num_frames / footage.rate:.1f} s is {num_rows:,} tokens, of {num_frames} frames "
                f"of {width} x {height}; max_model_len={self._max_rows} leaves no room for it: cut it, or raise that"
            )
        return width, height

    def _tile(self, pixels: NDArray[np.uint8], rows: int) -> Tile:
        height, width, _ = pixels.shape
        return Tile(height, width, pixels.tobytes(), rows)


def open_video_place(config: EngineConfig, config_directory: Path, max_model_len: int) -> VideoPlace:
    """What reads the videos of a model that is loaded."""
    processor = open_video_processor(config_directory, inner(read_json(config_directory / "config.json")))
    folder = config.allowed_local_media_path
    sources = MediaSources(VIDEO, None if folder is None else Path(folder), config.allowed_media_domains)
    return VideoPlace(processor, sources.opened, max_model_len, config.limit_mm_per_prompt.video)
