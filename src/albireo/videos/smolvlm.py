"""SmolVLM 2: a video is so many frames of it, told in words, each one square tile behind the minute and second that it
is of.

Published chat templates know no videos: a chat that has one is written by the template of the model's processor. Rows
and colours are those of pictures. Called by processor.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albireo.images.idefics3 import MARK, WHOLE, fit
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.settings import HALF, LANCZOS, MAX_SIDE, MAX_STEP, Settings
from albireo.json_file import Fields, keys
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import MAX_FRAMES, check_colours, refuse_unread
from albireo.videos.words import in_words

#: What stands for a video where the tokenizer has a token for it; else one that no template writes does.
_NAMED, _UNNAMED = "<video>", WHOLE
#: However long the longer side is said to be.
_MAX_LONGER = 4096
#: Seconds at either end that nothing is read of, where a video lasts far longer than it has frames.
_ENDS = 1
_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'] is string %}{{': ' + message['content']}}{% else %}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% elif line['type'] == 'video' %}{{ 'MARK' }}{% endif %}"
    "{% endfor %}{% endif %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, eq=False)
class SmolVLMVideo(HasPixels):
    """See VideoProcessor.

    Fields: longer: what the longer side of a frame becomes at first. side: of a tile, and rows: on a side of it.
        count: most frames of a video; fps: most of a second.
    """

    pixels: Pixels
    longer: int
    side: int
    rows: int
    count: int
    fps: float
    mark: str

    row_token, around, is_prose = "<image>", None, True

    @classmethod
    def read(cls, settings: Settings) -> SmolVLMVideo:
        """Raises: ModelError, UnsupportedModel."""
        said = settings.image
        check_colours(settings)
        sampling = Fields(said.table("video_sampling") or {}, f"{said.where}: video_sampling")
        # what files say of a size goes before what they say of that of videos, as in transformers
        of_size: Mapping[str, Any] = said.table("size") or sampling.table("video_size") or {"longest_edge": 4 * 364}
        size = Fields(of_size, f"{said.where}: size")
        (side,) = settings.size("longest_edge", default=364, key="max_image_size")
        settings.require_agreement(said, "max_image_size", side, settings.tower, "image_size")
        patch = settings.tower.integer("patch_size", 1, MAX_STEP, 32)
        found = cls(
            settings.pixels(("SmolVLMVideoProcessor",), LANCZOS, HALF, HALF, type_key="video_processor_type"),
            min(size.integer("longest_edge", 1, MAX_SIDE), _MAX_LONGER),
            side,
            side // patch // settings.model.integer("scale_factor", 1, MAX_STEP, 2),
            said.optional_integer("num_frames", 1, MAX_FRAMES) or sampling.integer("max_frames", 1, MAX_FRAMES, 64),
            said.optional_number("fps", 1e-3, 1e3) or sampling.number("fps", 1e-3, 1e3, 1.0),
            _mark(Path(settings.model.where).parent),
        )
        size.refuse_unread((), {})
        # read above where nothing goes before it
        sampling.refuse_unread(("video_size",), {})
        # copied from the file of pictures
        refuse_unread(said, keys("image_processor_type do_image_splitting"))
        return found

    @property
    def chat_template(self) -> str:
        """By which chats with videos are written."""
        return _TEMPLATE.replace("MARK", self.mark)

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """Evenly, without the ends of what lasts long."""
        total, seconds = footage.num_frames, footage.seconds
        count = max(1, min(round(self.fps * seconds), self.count))
        first, last = 0, total - 1
        if seconds - 2 * _ENDS > self.count * self.fps:
            first = int(_ENDS * footage.rate)
            last = min(int(total - _ENDS * footage.rate), total - 1)
            if first >= last:
                first, last = 0, total - 1
        return tuple(int(each) for each in np.unique(np.linspace(first, last, count, dtype=int)))

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Of what is kept of a frame until it becomes a tile."""
        first = fit(height, width, self.longer, 2)
        return first if max(first) < max(height, width) else (height, width)

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        return num_frames * self.rows**2

    def prepare(self, frames: Frames) -> PreparedVideo:
        """See VideoProcessor. Resized twice, as pictures are."""
        footage, side = frames.footage, self.side
        first = fit(footage.height, footage.width, self.longer, 2)
        shown = (self.pixels.resized(image, *first) for image in frames.images)
        tiles = tuple(array(self.pixels.resized(image, side, side)) for image in shown)
        rows = f"{MARK}{WHOLE}{self.row_token * self.rows**2}{MARK}"
        at = [int(number / footage.rate) for number in frames.numbers]
        each = (f"\nFrame from {seconds // 60:02d}:{seconds % 60:02d}:{rows}" for seconds in at)
        count, (minutes, seconds) = in_words(len(tiles)), divmod(int(footage.seconds), 60)
        lasts = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        told = f"You are provided the following series of {count} frames from a {lasts} [H:MM:SS] video.\n"
        return PreparedVideo(tiles, f"{told}{''.join(each)}\n\n", (self.rows, self.rows))

    def largest_tile(self) -> tuple[int, int]:
        return self.side, self.side


def _mark(directory: Path) -> str:
    """What stands for a video in a prompt."""
    path = directory / "tokenizer.json"
    return _NAMED if path.exists() and f'"{_NAMED}"'.encode() in path.read_bytes() else _UNNAMED
