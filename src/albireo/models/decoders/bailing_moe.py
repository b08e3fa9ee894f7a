"""Ling 2.0 and Ring 2.0 (mini, flash): Sarvam 30B, with experts in groups and a part of each head rotated; and Ling and
Ring before (lite, plus), whose experts are chosen by a softmax, without groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from albireo.json_file import keys
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
#: What files of the first ones mean where they say nothing.
_FIRST: Mapping[str, Any] = {
    **{"score_function": "softmax", "use_qk_norm": False, "first_k_dense_replace": 0, "routed_scaling_factor": 1.0},
    **{"norm_topk_prob": True, "rms_norm_eps": 1e-5, "rope_theta": 10000.0},
}
_CLASS = "BailingMoeForCausalLM"


def _said_of_first(data: Mapping[str, Any], _: str) -> Mapping[str, Any]:
    """What the class of the first ones has where a file does not say it."""
    classes = data.get("architectures")
    is_first = isinstance(classes, list) and _CLASS in classes
    return {"score_function": "sigmoid", **(_FIRST if is_first else {}), **data}


CONFIG = replace(
    sarvam_moe.CONFIG,
    defaults={**sarvam_moe.CONFIG.defaults, "rope_theta": 600000.0},
    experts="bailing",
    rewritten=_said_of_first,
    head_dim=None,
    # transformers has no class of it
    deciding=frozenset(),
    ignorable=sarvam_moe.CONFIG.ignorable | keys("auto_map norm_head multi_gate"),
    class_names=("BailingMoeV2ForCausalLM", _CLASS),
)
build = sarvam_moe.build
