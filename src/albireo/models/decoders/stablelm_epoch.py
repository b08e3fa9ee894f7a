"""StableLM 3B and Zephyr as they were first published, and what was made of them then: stablelm, whose keys have other
names.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import stablelm

_NEWER = {"layer_norm_eps": "norm_eps", "partial_rotary_factor": "rope_pct"}
TINY = {
    **{_NEWER.get(key, key): value for key, value in stablelm.TINY.items() if key != "use_parallel_residual"},
    "architectures": ["StableLMEpochForCausalLM"],
    "model_type": "stablelm_epoch",
    "use_qkv_bias": False,
    "rotary_scaling_factor": 1.0,
}
CONFIG = replace(stablelm.CONFIG, class_names=("StableLMEpochForCausalLM", "StableLmForCausalLM"))
build = stablelm.build
