"""InternVL as its authors publish it: config.json and names of tensors, as transformers has them of the same model.

Called by text_part.py and vision/tensors.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from albireo.json_file import keys

#: And Skywork R1V, which is one.
INTERNVL_CHAT, SKYWORK_CHAT = "internvl_chat", "skywork_chat"
#: Of config.json: how pictures are cut, which whoever prepares them reads; which way of cutting there is; how messages
#: were written, which the template says; and training.
INTERNVL_CHAT_KEYS = keys(
    "max_dynamic_patch min_dynamic_patch use_thumbnail dynamic_image_size force_image_size",
    "template system_message use_backbone_lora use_llm_lora hidden_size pad2square ps_version",
)
#: What keys of the tower are called.
FIRST_NAMES = {"qkv_bias": "attention_bias", "qk_normalization": "use_qk_norm"}
#: What absent keys of it mean: the largest tower.
_DEFAULTS = {
    "hidden_size": 3200,
    "intermediate_size": 12800,
    "num_attention_heads": 25,
    "num_hidden_layers": 48,
    "image_size": 224,
    "norm_type": "rms_norm",
    "qkv_bias": False,
    "qk_normalization": True,
}
#: Of it: experts that a tower has not where use_moe does not say so; how some other program runs it.
_OF_EXPERTS = keys(
    "capacity_factor ep_size eval_capacity_factor laux_allreduce moe_coeff_ratio moe_intermediate_size",
    "moe_output_scale noisy_gate_policy num_experts num_routed_experts num_shared_experts",
    "shared_expert_intermediate_size use_residual use_rts use_weighted_residual",
)
_OF_OTHERS = keys("use_flash_attn auto_map tie_word_embeddings")
#: Names of tensors, in this order.
_NAMES = (
    (r"^mlp1\.0\.", "multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
    (r"^vision_model\.embeddings\.class_embedding$", "vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"vision_tower.encoder.layer.\1."),
    (r"\.attn\.proj\.", ".attention.projection_layer."),
    (r"\.attn\.", ".attention."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.ls1$", ".lambda_1"),
    (r"\.ls2$", ".lambda_2"),
)
#: Which tell such a directory.
_ITS_OWN = ("mlp1.0.weight", "vision_model.embeddings.class_embedding")


def as_transformers_has_it(data: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with the parts that transformers' has, under its own model_type. What is no such part, and what has
    been made one already, stays as it is."""
    llm, vision = data.get("llm_config"), data.get("vision_config")
    if not isinstance(llm, Mapping) or not isinstance(vision, Mapping):
        return dict(data)
    # the text part alone says what of it is tied
    left_out = ("llm_config", "select_layer", "tie_word_embeddings")
    whole = {key: value for key, value in data.items() if key not in left_out}
    tower = {**_DEFAULTS, **vision}
    unsaid = _OF_OTHERS if tower.get("use_moe") else _OF_OTHERS | _OF_EXPERTS
    tower = {FIRST_NAMES.get(key, key): value for key, value in tower.items() if key not in unsaid}
    if tower.get("model_type", "intern_vit_6b") == "intern_vit_6b":
        tower |= {"model_type": "internvl_vision", "use_mean_pooling": True}
    return {
        **whole,
        "text_config": dict(llm),
        "vision_config": tower,
        "vision_feature_layer": data.get("select_layer", -1),
    }


def names_of_tower(names: Iterable[str]) -> dict[str, str]:
    """Of tensors of such a directory, those of tower and projector -> what transformers calls them; empty: it is none.

    Those of queries, keys and values of a layer are one, which is called attention.qkv here.
    """
    names = tuple(names)
    found = {name: name for name in names if name.startswith(("vision_model.", "mlp1."))}
    if any(name not in found for name in _ITS_OWN):
        return {}
    for pattern, wanted in _NAMES:
        found = {name: re.sub(pattern, wanted, called) for name, called in found.items()}
    return found
