"""Qwen25OmniVideo, Qwen3OmniVideo: Qwen2-VL's videos, whose tiles are as far apart as they are in time. What is heard
in a video is not read.

Chat templates write <|vision_bos|><|VIDEO|><|vision_eos|>, or <|vision_start|><|video_pad|><|vision_end|>; it is the
middle that becomes rows. Called by processor.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from albireo.images.settings import CLIP_MEAN, CLIP_STD, Settings
from albireo.videos.qwen2_vl import DEFAULTS, Qwen2VLVideo
from albireo.videos.settings import parse_video_settings


class Qwen25OmniVideo(Qwen2VLVideo):
    """See VideoProcessor."""

    mark = row_token = "<|VIDEO|>"
    defaults: ClassVar[Mapping[str, int]] = DEFAULTS

    @classmethod
    def read(cls, settings: Settings) -> Qwen25OmniVideo:
        """Raises: ModelError, UnsupportedModel."""
        found = parse_video_settings(settings, "Qwen2VLVideoProcessor", CLIP_MEAN, CLIP_STD, cls.defaults)
        return cls(found, settings.model.number("position_id_per_seconds", 0.0, 1e6, 25))


class Qwen3OmniVideo(Qwen25OmniVideo):
    """See VideoProcessor."""

    mark = row_token = "<|video_pad|>"
    defaults: ClassVar[Mapping[str, int]] = {
        "patch_size": 16,
        "shortest_edge": 128 * 32 * 32,
        "longest_edge": 768 * 32 * 32,
        "max_video_tokens": DEFAULTS["max_video_tokens"],
    }
