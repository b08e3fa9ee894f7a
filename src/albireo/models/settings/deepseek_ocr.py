"""DeepSeek-OCR as its authors publish it: config.json by the names that towers and text parts have here, and names of
tensors.

Called by text_part.py and vision/tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.json_file import Fields

DEEPSEEK_OCR = "deepseek_ocr"
#: What its files call it, which DeepSeek-VL2 is, too, and its class.
_PUBLISHED, CLASS_NAME = "deepseek_vl_v2", "DeepseekOCRForCausalLM"
#: Parts of the tower: what its keys are called, and what absent ones mean.
_CLIP, _SAM = "clip-l-14-224", "sam_vit_b"
_NAMES = {"width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads"}
_OF_CLIP = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
#: Of the whole, of the tower and of the projector: what is computed anyway.
_ONLY = {"tile_tag": "2D", "global_view_pos": "head"}
_TOWER_ONLY = {"model_name": "deeplip_b_l"}
_PROJECTOR_ONLY = {"projector_type": "linear"}
#: Names of tensors, in this order.
_TENSORS = (
    (r"^model\.(sam_model|vision_model|projector|image_newline|view_seperator)\b", r"\1"),
    (r"^sam_model\.blocks\.(\d+)\.norm(\d)\.", r"sam_model.layers.\1.layer_norm\2."),
    (r"^sam_model\.blocks\.", "sam_model.layers."),
    (r"^sam_model\.patch_embed\.proj\.", "sam_model.patch_embed.projection."),
    (r"^sam_model\.neck\.0\.", "sam_model.neck.conv1."),
    (r"^sam_model\.neck\.1\.", "sam_model.neck.layer_norm1."),
    (r"^sam_model\.neck\.2\.", "sam_model.neck.conv2."),
    (r"^sam_model\.neck\.3\.", "sam_model.neck.layer_norm2."),
)
#: Which tells such a directory.
ITS_OWN = "model.sam_model.pos_embed"


def is_deepseek_ocr(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one, as published."""
    classes = data.get("architectures")
    return data.get("model_type") == _PUBLISHED and isinstance(classes, list) and CLASS_NAME in classes


def by_parts(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A published config.json with a text_config and a tower of two parts, under a model_type of its own.

    Raises: ModelError for a bad value; UnsupportedModel naming key and value for what is not computed.
    """
    whole = Fields(data, where)
    vision = Fields(whole.table("vision_config") or {}, f"{where}: vision_config")
    projector = Fields(whole.table("projector_config") or {}, f"{where}: projector_config")
    for fields, wanted in ((whole, _ONLY), (vision, _TOWER_ONLY), (projector, _PROJECTOR_ONLY)):
        for key, only in wanted.items():
            fields.only(key, only)
    parts = Fields(vision.table("width") or {}, f"{vision.where}: width")
    text = {key: value for key, value in (whole.table("language_config") or {}).items() if key != "auto_map"}
    left_out = ("language_config", "projector_config", "candidate_resolutions", *_ONLY)
    return {
        **{key: value for key, value in data.items() if key not in left_out},
        "model_type": DEEPSEEK_OCR,
        "text_config": {**text, "model_type": "deepseek"},
        "vision_config": {
            "model_type": "deepseek_ocr_vision",
            "encoder_config": {**_OF_CLIP, **_renamed(parts.table(_CLIP) or {})},
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


def _renamed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(key, key): value for key, value in table.items()}
