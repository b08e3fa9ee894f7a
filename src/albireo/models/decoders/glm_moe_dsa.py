"""GLM-5, 5.1 and 5.2: DeepSeek V3.2 with other numbers, in which layers may see what the layer before them has
chosen.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.models.blocks.indexer import indexed_blocks
from albireo.models.decoders import deepseek_v32

TINY = {
    **{key: value for key, value in deepseek_v32.TINY.items() if key != "rope_scaling"},
    "architectures": ["GlmMoeDsaForCausalLM"],
    "model_type": "glm_moe_dsa",
    "vocab_size": 113,
    "num_hidden_layers": 3,
    "indexer_types": ["full", "shared", "full"],
    "n_group": 1,
    "topk_group": 1,
    "qk_nope_head_dim": 14,
}
CONFIG = replace(
    deepseek_v32.CONFIG,
    blocks=partial(indexed_blocks, shares=True, heads=32, has_pairs_side_by_side=True),
    built_in={**deepseek_v32.CONFIG.built_in, "indexer_rope_interleave": True},
    defaults={
        **deepseek_v32.CONFIG.defaults,
        "rms_norm_eps": 1e-5,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "n_group": 1,
        "topk_group": 1,
    },
)
IGNORABLE_WEIGHTS = deepseek_v32.IGNORABLE_WEIGHTS
build = deepseek_v32.build
