"""DeepSeek-OCR and DeepSeek-OCR 2 as their authors publish them: config.json by the names that towers and text parts
have here, and names of tensors.

Called by text_part.py and vision/tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.json_file import Fields

DEEPSEEK_OCR, DEEPSEEK_OCR2 = "deepseek_ocr", "deepseek_ocr2"
#: What their files call both, which DeepSeek-VL2 is, too, and their classes.
_PUBLISHED, CLASS_NAME, CLASS_NAME2 = "deepseek_vl_v2", "DeepseekOCRForCausalLM", "DeepseekOCR2ForCausalLM"
_KINDS = {CLASS_NAME: DEEPSEEK_OCR, CLASS_NAME2: DEEPSEEK_OCR2}
#: Parts of the tower: what its keys are called, and what absent ones mean.
_CLIP, _QWEN2, _SAM = "clip-l-14-224", "qwen2-0-5b", "sam_vit_b"
_NAMES = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
_OF_CLIP = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
#: Of what asks in the second one, whose files say how wide it is and no more.
_OF_QWEN2 = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "rope_theta": 1000000.0,
}
#: Of the whole, of the tower of either and of the projector: what is computed anyway.
_ONLY = {"tile_tag": "2D", "global_view_pos": "head"}
_TOWER_ONLY = {DEEPSEEK_OCR: {"model_name": "deeplip_b_l"}, DEEPSEEK_OCR2: {"model_name": "deepencoderv2"}}
_PROJECTOR_ONLY = {"projector_type": "linear"}
#: Names of tensors, in this order.
_TENSORS = (
    (r"^model\.(sam_model|vision_model|qwen2_model|projector|image_newline|view_seperator)\b", r"\1"),
    (r"^sam_model\.blocks\.(\d+)\.norm(\d)\.", r"sam_model.layers.\1.layer_norm\2."),
    (r"^sam_model\.blocks\.", "sam_model.layers."),
    (r"^sam_model\.patch_embed\.proj\.", "sam_model.patch_embed.projection."),
    (r"^qwen2_model\.model\.model\.", "qwen2_model."),
    (r"^sam_model\.neck\.0\.", "sam_model.neck.conv1."),
    (r"^sam_model\.neck\.1\.", "sam_model.neck.layer_norm1."),
    (r"^sam_model\.neck\.2\.", "sam_model.neck.conv2."),
    (r"^sam_model\.neck\.3\.", "sam_model.neck.layer_norm2."),
)
#: Which tells such a directory.
ITS_OWN = "model.sam_model.pos_embed"


def is_deepseek_ocr(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one, as published."""
    return _kind(data) is not None


def by_parts(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A published config.json with a text_config and a tower of two parts, under a model_type of its own.

    Raises: ModelError for a bad value; UnsupportedModel naming key and value for what is not computed.
    """
    whole = Fields(data, where)
    vision = Fields(whole.table("vision_config") or {}, f"{where}: vision_config")
    projector = Fields(whole.table("projector_config") or {}, f"{where}: projector_config")
    kind = str(_kind(data))
    for fields, wanted in ((whole, _ONLY), (vision, _TOWER_ONLY[kind]), (projector, _PROJECTOR_ONLY)):
        for key, only in wanted.items():
            fields.only(key, only)
    parts = Fields(vision.table("width") or {}, f"{vision.where}: width")
    text = {key: value for key, value in (whole.table("language_config") or {}).items() if key != "auto_map"}
    left_out = ("language_config", "projector_config", "candidate_resolutions", *_ONLY)
    return {
        **{key: value for key, value in data.items() if key not in left_out},
        "model_type": kind,
        "text_config": {**text, "model_type": "deepseek"},
        "vision_config": {
            "model_type": f"{kind}_vision",
            "encoder_config": _encoder(parts, kind),
            "sam_config": {"image_size": vision.raw("image_size") or 1024, **_renamed(parts.table(_SAM) or {})},
        },
    }


def names_of_tower(names: Iterable[str]) -> dict[str, str]:
    """Of tensors of such a directory, those of tower and projector -> what they are called here; empty: it is none."""
    names = tuple(names)
    if ITS_OWN not in names:
        return {}
    found = {name: name for name in names if re.match(_TENSORS[0][0], name)}
    for pattern, wanted in _TENSORS:
        found = {name: re.sub(pattern, wanted, called) for name, called in found.items()}
    return found


def _kind(data: Mapping[str, Any]) -> str | None:
    """Which of both a config.json is of; None: of neither."""
    classes = data.get("architectures")
    if data.get("model_type") != _PUBLISHED or not isinstance(classes, list):
        return None
    return next((kind for name, kind in _KINDS.items() if name in classes), None)


def _encoder(parts: Fields, kind: str) -> dict[str, Any]:
    """What is said of the encoder behind SAM's."""
    if kind == DEEPSEEK_OCR:
        return {**_OF_CLIP, **_renamed(parts.table(_CLIP) or {})}
    names = {"dim": "hidden_size"}
    return {**_OF_QWEN2, **{names.get(key, key): value for key, value in (parts.table(_QWEN2) or {}).items()}}


def _renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(key, key): value for key, value in table.items()}
