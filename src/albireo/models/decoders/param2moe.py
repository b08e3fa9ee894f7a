"""Param 2 17B (BharatGen): Sarvam 30B, with experts in groups."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import sarvam_moe

TINY = {
    **sarvam_moe.TINY,
    "architectures": ["Param2MoEForCausalLM"],
    "model_type": "param2moe",
    "vocab_size": 127,
    "rope_theta": 10000.0,
    "use_bias": False,
    "n_group": 4,
    "topk_group": 2,
}
CONFIG = replace(
    sarvam_moe.CONFIG,
    defaults={
        **sarvam_moe.CONFIG.defaults,
        "n_group": 8,
        "topk_group": 4,
        "rope_theta": 600000.0,
        "routed_scaling_factor": 1.0,
        "max_position_embeddings": 32768,
    },
    head_dim=128,
    # transformers has no class of it
    deciding=frozenset(),
    class_names=("Param2MoEForCausalLM",),
)
build = sarvam_moe.build
