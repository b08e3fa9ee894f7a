"""open_video_processor: what prepares the videos of a model, by its model_type.

Called by the front doors. Needs no PyAV until a video comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.images.settings import Settings
from albireo.videos.prepared import PreparedVideo, VideoProcessor
from albireo.videos.settings import read_video_settings

__all__ = ["PreparedVideo", "VideoProcessor", "open_video_processor", "reads_videos"]

#: By model_type: the file that is imported where such a model is opened, and the class in it that reads settings.
_FAMILIES: Mapping[str, str] = {
    "exaone4_5": "qwen2_vl.Qwen2VLVideo",
    "gemma4": "gemma4.Gemma4Video",
    "gemma4_unified": "gemma4.Gemma4Video",
    "glm46v": "glm4v.Glm4vVideo",
    "glm4v": "glm4v.Glm4vVideo",
    "glm4v_moe": "glm4v.Glm4vVideo",
    "internvl": "internvl.InternVLVideo",
    "kimi_k25": "kimi_k25.KimiK25Video",
    "llava_onevision": "llava_onevision.LlavaOnevisionVideo",
    "minimax_m3_vl": "minimax_m3_vl.MiniMaxM3Video",
    "qwen2_5_omni": "omni.Qwen25OmniVideo",
    "qwen2_5_vl": "qwen2_vl.Qwen2VLVideo",
    "qwen2_vl": "qwen2_vl.Qwen2VLVideo",
    "qwen3_5": "qwen3_vl.Qwen3VLVideo",
    "qwen3_5_moe": "qwen3_vl.Qwen3VLVideo",
    "qwen3_omni_moe": "omni.Qwen3OmniVideo",
    "qwen3_vl": "qwen3_vl.Qwen3VLVideo",
    "qwen3_vl_moe": "qwen3_vl.Qwen3VLVideo",
    "smolvlm": "smolvlm.SmolVLMVideo",
}


def reads_videos(config: Mapping[str, Any]) -> bool:
    """Whether of a model, by what its config.json holds, videos are read here."""
    return config.get("model_type") in _FAMILIES


def open_video_processor(directory: Path, config: Mapping[str, Any]) -> VideoProcessor:
    """What prepares videos as a directory says; config is what its config.json holds.

    Raises: ModelError for damaged files and for values that contradict config.json; UnsupportedModel for another
    model, and for settings that are not computed.
    """
    place = _FAMILIES.get(str(config.get("model_type")))
    if place is None:
        raise UnsupportedModel(
            f"{directory}: of model_type={short(config.get('model_type'))} no videos are read; of these they are: "
            f"{', '.join(_FAMILIES)}"
        )
    file, _, name = place.partition(".")
    read: Callable[[Settings], VideoProcessor] = getattr(import_module(f"{__package__}.{file}"), name).read
    return read(read_video_settings(directory, config))
