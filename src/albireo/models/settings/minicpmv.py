"""MiniCPM-V and MiniCPM-o as their authors publish them: config.json with a text_config, and names of tensors.

Called by text_part.py and vision/tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.errors import UnsupportedModel, short
from albireo.json_file import keys

#: The latter hears and speaks, too.
MINICPMV, MINICPMO = "minicpmv", "minicpmo"
#: A version -> the text part. The first is of MiniCPM-Llama3-V 2.5, whose files say none.
FIRST = "2.5"
PARTS = {FIRST: "llama", "2.6": "qwen2", "4.0": "llama", "4.5": "qwen3"}
_UNSAID = {MINICPMV: FIRST, MINICPMO: "2.6"}
#: Files of MiniCPM-V 2 say none, either; it has another tower.
_OF_SECOND = {"hidden_size": 2304, "query_num": 64}
#: Of the whole: the tower, how pictures are cut, which their processor says, and how many are computed at once.
OF_SIGHT = keys(
    "version query_num drop_vision_last_layer image_size patch_size slice_config slice_mode use_image_id",
    "batch_vision_input batch_3d_resampler vision_batch_size init_vision",
)
#: What hears and speaks, and how.
OF_SOUNDS = keys(
    "audio_config tts_config init_audio init_tts audio_chunk_length audio_pool_step chunk_input stream_input",
    "listen_speak_type tie_weights",
)
_OF_WHOLE = keys(
    "_name_or_path architectures auto_map model_type transformers_version torch_dtype dtype vision_config",
    "attn_implementation _attn_implementation",
)
#: Names of tensors, in this order.
_TENSORS = (
    (r"^vpm\.", "vision_model."),
    (r"^resampler\.(query|proj)$", r"resampler.\1.weight"),
    # three parts of one size
    (r"^resampler\.attn\.in_proj_(weight|bias)$", r"resampler.attention.qkv.\1"),
    (r"^resampler\.attn\.", "resampler.attention."),
)
_ITS_OWN = "resampler.attn.in_proj_weight"


def is_minicpmv(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one, as published."""
    return data.get("model_type") in (MINICPMV, MINICPMO) and "text_config" not in data


def by_parts(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A published config.json with a text_config. Raises: UnsupportedModel for a version that is not computed."""
    version = str(data.get("version", _UNSAID[str(data["model_type"])]))
    is_second = "version" not in data and all(data.get(key) == value for key, value in _OF_SECOND.items())
    if version not in PARTS or is_second:
        told = "says none, as those of MiniCPM-V 2" if is_second else f"is {short(data['version'])}"
        raise UnsupportedModel(f"{where}: version {told}, which is not supported; supported: {', '.join(PARTS)}")
    kept = OF_SIGHT | OF_SOUNDS | _OF_WHOLE
    text = {key: value for key, value in data.items() if key not in kept}
    whole = {**{key: value for key, value in data.items() if key in kept}, "version": version}
    return {**whole, "text_config": {**text, "model_type": PARTS[version]}}


def names_of_tower(names: Iterable[str]) -> dict[str, str]:
    """Of tensors of such a directory, those of tower and resampler -> what they are called here; empty: it is none."""
    names = tuple(names)
    if _ITS_OWN not in names:
        return {}
    found = {name: name for name in names if name.startswith(("vpm.", "resampler."))}
    for pattern, wanted in _TENSORS:
        found = {name: re.sub(pattern, wanted, called) for name, called in found.items()}
    return found
