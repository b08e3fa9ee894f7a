"""GLM-4.1V, 4.5V and 4.6V: a video is a sequence of moments, each shown as a picture is, and then told in seconds.

Chat templates write <|begin_of_video|><|video|><|end_of_video|>; it is the middle that becomes
<|begin_of_image|>…<|end_of_image|>3 for each two frames, of which the first is at that second. Rows are those of
pictures. Called by processor.py.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from albireo.images.qwen2_vl import nearest_size
from albireo.images.settings import CLIP_MEAN, CLIP_STD, Settings
from albireo.videos.decode import Footage, Frames
from albireo.videos.prepared import PreparedVideo
from albireo.videos.settings import HasSettings, VideoSettings, parse_video_settings

_DEFAULTS = {
    "patch_size": 14,
    "shortest_edge": 112 * 112,
    "longest_edge": 28 * 28 * 2 * 30_000,
    # there is no such bound
    "max_video_tokens": 1,
}
#: By model_type what a file without video_processor_type has.
_KINDS = {"glm46v": "Glm46VVideoProcessor"}
_OLDER, _NEWER = "Glm4vVideoProcessor", "Glm46VVideoProcessor"
#: Of the newer: seconds that a video lasts at most, and how many moments a second are read of it then; frames of all;
#: seconds of the longest, of which no more are counted.
_RATES = ((30, 3.0), (300, 1.0), (math.inf, 0.5))
_MOST_FRAMES, _LONGEST = 640, 2400


@dataclass(frozen=True, slots=True, eq=False)
class Glm4vVideo(HasSettings):
    """See VideoProcessor. Of the settings' pixels fewest and most are those of a video, in all its frames.

    Fields: is_newer: 4.6V, which chooses frames and tells moments otherwise. longest: seconds of which so many frames
    each are read; of longer videos as many in all.
    """

    settings: VideoSettings
    is_newer: bool
    longest: int

    mark, row_token, around = "<|video|>", "<|image|>", None
    _BEGIN, _END = "<|begin_of_image|>", "<|end_of_image|>"

    @classmethod
    def read(cls, settings: Settings) -> Glm4vVideo:
        """Raises: ModelError, UnsupportedModel."""
        said = settings.image
        kind = said.text("video_processor_type", _KINDS.get(str(settings.model.raw("model_type")), _OLDER))
        # GLM-4.6V is published as a glm4v_moe, too
        kind = _NEWER if kind == _NEWER else _OLDER
        longest = said.integer("max_duration", 1, 2**31, 300)
        # frames are chosen by seconds, whatever these say
        found = parse_video_settings(settings, kind, CLIP_MEAN, CLIP_STD, _DEFAULTS, ("num_frames", "max_duration"))
        return cls(found, kind == _NEWER, longest)

    def choose(self, footage: Footage) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self._newer(footage) if self.is_newer else self._older(footage)))

    def _older(self, footage: Footage) -> list[int]:
        """So many a second, from the first on; of long videos as many as of one that is not, evenly."""
        fps, last = self.settings.fps, footage.num_frames - 1
        seconds = footage.num_frames / footage.rate
        if seconds <= self.longest:
            count = max(int(seconds * fps), 1)
            return [min(last, math.ceil(n * footage.rate / fps)) for n in range(count)]
        count = int(self.longest * fps)
        if count >= footage.num_frames:
            return list(range(footage.num_frames))
        return [min(last, math.ceil(second * footage.rate)) for second in np.linspace(0, seconds, count).tolist()]

    def _newer(self, footage: Footage) -> list[int]:
        """Two for each moment: the first frame behind each half of it; evenly where these are too few or too many."""
        total, seconds = footage.num_frames, footage.num_frames / footage.rate
        counted, each = min(seconds, _LONGEST), self.settings.frames
        rate = next(rate for longest, rate in _RATES if counted <= longest)
        count, apart = min(max(1, int(counted * rate * each)), _MOST_FRAMES), 1 / (each * rate)
        found, wanted = [], 0.0
        if total >= count:
            for frame in range(total):
                if frame * (1 / footage.rate) >= wanted:
                    wanted += apart
                    found.append(frame)
                    if wanted >= int(seconds):
                        break
        if len(found) == count:
            return found
        # of few the last that was found stays the last
        first, last = (found[0], found[-1]) if 0 < len(found) < count else (0, total - 1)
        return [int(frame) for frame in np.linspace(first, last, count, dtype=int)]

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        s, given = self.settings, (height, width)
        if min(given) < s.step:
            scale = max(s.step / height, s.step / width)
            height, width = int(height * scale), int(width * scale)
        # the last of an odd number is there twice
        shown = num_frames + num_frames % s.frames
        return nearest_size(height, width, s.step, s.fewest, s.most, shown, given)

    def prepare(self, frames: Frames) -> PreparedVideo:
        s, footage = self.settings, frames.footage
        height, width = self.size(len(frames.images), footage.height, footage.width)
        lines, columns = s.rows(height, width)
        shown = f"{self._BEGIN}{self.row_token * (lines * columns)}{self._END}"
        moments = [number / footage.rate for number in itertools.islice(frames.numbers, 0, None, s.frames)]
        told = [f"{moment:.1f} seconds" if self.is_newer else f"{int(moment)}" for moment in moments]
        return PreparedVideo(
            s.tiles(frames.images, height, width), "".join(f"{shown}{each}" for each in told), (lines, columns)
        )

    def largest_tile(self) -> tuple[int, int]:
        s = self.settings
        return s.step, s.step * max(1, s.most // s.frames // s.step**2)
