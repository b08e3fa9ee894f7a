"""InternVL's directories as its authors publish them, of those that transformers writes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

#: Names that transformers has -> those of the authors, in this order; independently of albireo.models.
_NAMES = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("multi_modal_projector.layer_norm.", "mlp1.0."),
    ("multi_modal_projector.linear_1.", "mlp1.1."),
    ("multi_modal_projector.linear_2.", "mlp1.3."),
    ("vision_tower.embeddings.cls_token", "vision_model.embeddings.class_embedding"),
    ("vision_tower.embeddings.position_embeddings", "vision_model.embeddings.position_embedding"),
    ("vision_tower.embeddings.patch_embeddings.projection.", "vision_model.embeddings.patch_embedding."),
    ("vision_tower.encoder.layer.", "vision_model.encoder.layers."),
)
_PARTS = {
    "attention.projection_layer": "attn.proj",
    "attention.q_norm": "attn.q_norm",
    "attention.k_norm": "attn.k_norm",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "lambda_1": "ls1",
    "lambda_2": "ls2",
}
_KEYS = {"attention_bias": "qkv_bias", "use_qk_norm": "qk_normalization"}
_OF_TOWER = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "norm_type"),
    *("layer_norm_eps", "attention_bias", "use_qk_norm"),
)
_EXPERTS = {"use_moe": False, "num_experts": 8, "noisy_gate_policy": "RSample_before", "capacity_factor": 1.2}


def publish(folder: Path) -> dict[str, Any]:
    """Writes config.json and tensors anew. Returns: what config.json holds."""
    path = folder / "config.json"
    data = json.loads(path.read_text())
    vision, text = data["vision_config"], data["text_config"]
    tower = {_KEYS.get(key, key): vision[key] for key in _OF_TOWER}
    tower |= {"image_size": vision["image_size"][0], "patch_size": vision["patch_size"][0], "use_flash_attn": True}
    tower |= {"model_type": "intern_vit_6b", "architectures": ["InternVisionModel"], **_EXPERTS}
    published = {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "downsample_ratio": data["downsample_ratio"],
        "dynamic_image_size": True,
        "force_image_size": tower["image_size"],
        "max_dynamic_patch": 3,
        "min_dynamic_patch": 1,
        "pad2square": False,
        "ps_version": "v2",
        "select_layer": data["vision_feature_layer"],
        "template": "internvl2_5",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "llm_config": {**text, "tie_word_embeddings": data["tie_word_embeddings"]},
        "vision_config": tower,
    }
    path.write_text(json.dumps(published))
    file = folder / "model.safetensors"
    save_file(_renamed(load_file(file)), file)
    return published


def _renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for own, tensor in tensors.items():
        name = own
        for old, new in _NAMES:
            name = new + name.removeprefix(old) if name.startswith(old) else name
        for old, new in _PARTS.items():
            name = name.replace(f".{old}", f".{new}") if name.startswith("vision_model.") else name
        found[name] = tensor
    joined = re.compile(r"(vision_model\.encoder\.layers\.\d+)\.attention\.q_proj\.(weight|bias)")
    for name in list(found):
        if match := joined.fullmatch(name):
            layer, kind = match.groups()
            parts = [found.pop(f"{layer}.attention.{part}_proj.{kind}") for part in "qkv"]
            found[f"{layer}.attn.qkv.{kind}"] = np.concatenate(parts)
    return found
