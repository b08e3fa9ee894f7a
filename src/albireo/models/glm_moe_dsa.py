"""GLM-5, 5.1 and 5.2: DeepSeek V3.2 with other numbers.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.models import deepseek_v3, deepseek_v32

TINY = {
    **{key: value for key, value in deepseek_v32.TINY.items() if key != "rope_scaling"},
    "architectures": ["GlmMoeDsaForCausalLM"],
    "model_type": "glm_moe_dsa",
    "vocab_size": 113,
    "n_group": 1,
    "topk_group": 1,
    "qk_nope_head_dim": 14,
}
CONFIG = replace(
    deepseek_v32.CONFIG,
    defaults={
        **deepseek_v32.CONFIG.defaults,
        "rms_norm_eps": 1e-5,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
    },
)
IGNORABLE_WEIGHTS = deepseek_v32.IGNORABLE_WEIGHTS
build = deepseek_v3.build
