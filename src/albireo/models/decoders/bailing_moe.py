"""Ling 2.0 and Ring 2.0 (mini, flash): Sarvam 30B, with experts in groups and a part of each head rotated."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import sarvam_moe

TINY = {
    **sarvam_moe.TINY,
    "architectures": ["BailingMoeV2ForCausalLM"],
    "model_type": "bailing_moe",
    "vocab_size": 127,
    "partial_rotary_factor": 0.5,
    "rope_theta": 600000.0,
    "n_group": 4,
    "topk_group": 2,
}
CONFIG = replace(
    sarvam_moe.CONFIG,
    defaults={**sarvam_moe.CONFIG.defaults, "rope_theta": 600000.0},
    head_dim=None,
    # transformers has no class of it
    deciding=frozenset(),
    ignorable=sarvam_moe.CONFIG.ignorable | {"auto_map"},
    class_names=("BailingMoeV2ForCausalLM",),
)
build = sarvam_moe.build
