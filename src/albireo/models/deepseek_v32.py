"""DeepSeek V3.2: DeepSeek V3 whose positions choose, of those before them, index_topk that they see.

Up to so many positions they see all of them, which is what is computed here; longer contexts are refused, and what
chooses (indexer) is left where it lies. Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields, keys
from albireo.models import deepseek_v3
from albireo.models.block_settings import BlockSettings
from albireo.models.latent_attention import latent_blocks
from albireo.models.rope_settings import MAX_POSITIONS

TINY = {
    **deepseek_v3.TINY,
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "vocab_size": 111,
    "num_hidden_layers": 2,
    "index_topk": 256,
    "index_n_heads": 2,
    "index_head_dim": 12,
}


def _blocks(fields: Fields) -> BlockSettings:
    most = fields.integer("index_topk", 1, MAX_POSITIONS, default=2048)
    return replace(latent_blocks(fields), most_positions=most)


CONFIG = replace(
    deepseek_v3.CONFIG,
    blocks=_blocks,
    windows="seeing_all",
    older_names={"num_experts": "n_routed_experts"},
    # of how positions choose, and in which layers
    ignorable=deepseek_v3.CONFIG.ignorable
    | keys(
        "index_n_heads index_head_dim indexer_rope_interleave indexer_types index_topk_freq index_topk_pattern",
        "index_skip_topk_offset index_share_for_mtp_iteration moe_router_dtype",
    ),
)
IGNORABLE_WEIGHTS = ("model.layers.*.self_attn.indexer.*",)
build = deepseek_v3.build
