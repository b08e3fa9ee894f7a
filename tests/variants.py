"""Tiny configs by name: an architecture's own, and those whose files say what makes another model of it."""

from __future__ import annotations

from typing import Any

from albireo.models import Architecture, load_architecture

#: Name, the architecture first -> what is said besides.
VARIANTS: dict[str, dict[str, Any]] = {
    "gemma4_text, experts": {
        "enable_moe_block": True,
        "num_experts": 7,
        "top_k_experts": 3,
        "moe_intermediate_size": 20,
    },
    "gemma4_text, embeddings of layers": {
        "num_hidden_layers": 5,
        "num_kv_shared_layers": 2,
        "layer_types": [*["sliding_attention"] * 2, *["full_attention", "sliding_attention", "full_attention"]],
        "use_double_wide_mlp": True,
        "hidden_size_per_layer_input": 12,
        "vocab_size_per_layer_input": 139,
        "attention_k_eq_v": False,
    },
}
#: Of models whose shared expert is as wide as others, as those are that are published: on GPUs it is one of them.
AS_WIDE: dict[str, dict[str, Any]] = {
    "deepseek_v3, as wide": {"n_shared_experts": 1},
    "qwen2_moe, as wide": {
        "shared_expert_intermediate_size": load_architecture("qwen2_moe").tiny["moe_intermediate_size"]
    },
}
#: Those whose tokens have experts.
MIXED = tuple(name for name, said in VARIANTS.items() if said.get("enable_moe_block"))


def architecture_of(name: str) -> Architecture:
    """Of an architecture's name, or a variant's."""
    return load_architecture(name.partition(",")[0])


def tiny_of(name: str) -> dict[str, Any]:
    """The tiny config of an architecture, or of a variant."""
    return {**architecture_of(name).tiny, **VARIANTS.get(name, {}), **AS_WIDE.get(name, {})}
