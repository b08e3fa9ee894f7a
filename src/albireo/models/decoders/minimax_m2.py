"""MiniMax M2, 2.1, 2.5, 2.7: half of each head rotated, q and k normed over all heads; experts chosen by sigmoids and a
bias.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: Nine experts of 28 channels, three a token; a quarter of each head rotated.
TINY = TINY_LLAMA | {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "model_type": "minimax_m2",
    "vocab_size": 137,
    "hidden_size": 40,
    "intermediate_size": 28,
    "head_dim": 16,
    "rotary_dim": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 5000000,
    "use_qk_norm": True,
    "qk_norm_type": "per_layer",
    "attn_type_list": [1, 1],
    "num_local_experts": 9,
    "num_experts_per_tok": 3,
    "scoring_func": "sigmoid",
    "use_routing_bias": True,
    "use_mtp": True,
    "num_mtp_modules": 3,
    "mtp_transformer_layers": 1,
    "shared_intermediate_size": 0,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    kinds = fields.raw("attn_type_list") or []
    if not isinstance(kinds, list) or any(kind != 1 for kind in kinds):
        fields.unsupported("attn_type_list", kinds, "supported: 1, attention, in every layer")
    return BlockSettings()


CONFIG = ConfigRules(
    keys=frozenset({"partial_rotary_factor", "rotary_dim"}),
    head_dim=128,
    experts="minimax",
    defaults={"num_key_value_heads": 8, "rope_theta": 5000000.0, "bos_token_id": 200034, "eos_token_id": 200020},
    blocks=_blocks,
    built_in={"use_qk_norm": True, "qk_norm_type": "per_layer", "use_routing_bias": True, "scoring_func": "sigmoid"},
    ignorable=frozenset({"auto_map", "use_mtp", "num_mtp_modules", "mtp_transformer_layers"}),
)
_NAMES = Names("block_sparse_moe", "w1", "w3", "w2", bias="e_score_correction_bias")
build = partial(decoder, ffn=partial(moe_block, names=_NAMES), qk_norm=True, is_norm_wide=True)
