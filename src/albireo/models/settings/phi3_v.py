"""Phi-3-vision and Phi-3.5-vision as their authors publish them: config.json by parts, and names of tensors.

Called by text_part.py and vision/tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.json_file import Fields, keys

PHI3_V = "phi3_v"
#: The tower, which files name and do not describe: CLIP-L of 336 pixels.
_CLIP = "openai/clip-vit-large-patch14-336"
_SIZES = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
#: Of how rows are made of it: what is computed anyway.
_ONLY = {
    "img_processor": {"name": "clip_vision_model", "model_name": _CLIP, "image_dim_out": 1024, "num_img_tokens": 144},
    "embd_layer": {
        "embedding_cls": "image",
        "projection_cls": "mlp",
        "hd_transform_order": "sub_glb",
        "use_hd_transform": True,
        "with_learnable_separator": True,
    },
}
_OF_WHOLE = keys("_name_or_path architectures auto_map model_type transformers_version torch_dtype dtype")
#: Names of tensors, in this order.
_EMBED = "model.vision_embed_tokens."
_TENSORS = (
    (rf"^{re.escape(_EMBED)}", ""),
    (r"^img_processor\.vision_model\.", "vision_tower."),
    (r"^img_projection\.0\.", "multi_modal_projector.linear_1."),
    (r"^img_projection\.2\.", "multi_modal_projector.linear_2."),
)
_ITS_OWN = f"{_EMBED}glb_GN"


def is_phi3_v(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one, as published."""
    return data.get("model_type") == PHI3_V and "text_config" not in data


def by_parts(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A published config.json with a text_config and a vision_config.

    Raises: ModelError for a bad value; UnsupportedModel naming key and value for what is not computed.
    """
    whole = Fields(data, where)
    parts = {key: Fields(whole.table(key) or {}, f"{where}: {key}") for key in _ONLY}
    for key, wanted in _ONLY.items():
        for name, only in wanted.items():
            parts[key].only(name, only)
    tower = parts["img_processor"]
    tower.only("type_feature", "patch")
    layer = tower.raw("layer_idx")
    for fields in parts.values():
        fields.refuse_unread((), {})
    text = {key: value for key, value in data.items() if key not in _OF_WHOLE and key not in _ONLY}
    return {
        **{key: value for key, value in data.items() if key in _OF_WHOLE},
        "text_config": {**text, "model_type": "phi3"},
        "vision_config": dict(_SIZES),
        "vision_feature_layer": -2 if layer is None else layer,
    }


def names_of_tower(names: Iterable[str]) -> dict[str, str]:
    """Of tensors of such a directory, those of tower and projector -> what they are called here; empty: it is none."""
    names = tuple(names)
    if _ITS_OWN not in names:
        return {}
    found = {name: name for name in names if name.startswith(_EMBED)}
    for pattern, wanted in _TENSORS:
        found = {name: re.sub(pattern, wanted, called) for name, called in found.items()}
    return found
