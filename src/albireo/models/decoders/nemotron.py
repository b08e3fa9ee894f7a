"""Nemotron 3 and 4, Minitron: a LayerNorm whose weights have 1 added, an FFN of two matrices with relu², half of each
head rotated.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["NemotronForCausalLM"],
    "model_type": "nemotron",
    "vocab_size": 139,
    "intermediate_size": 88,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 20,
    "hidden_act": "relu2",
    "norm_eps": 1e-5,
    "partial_rotary_factor": 0.4,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(is_layer_norm=True, qkv_bias=bias, o_bias=bias, ffn_bias=fields.flag("mlp_bias", False))


CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor"),
    names={"rms_norm_eps": "norm_eps"},
    older_names={"rope_percent": "partial_rotary_factor", "kv_channels": "head_dim"},
    blocks=_blocks,
    activation="relu2",
    multipliers=Multipliers(norm_plus=1.0),
    defaults={"norm_eps": 1e-5, "partial_rotary_factor": 0.5, "max_position_embeddings": 4096},
)
build = partial(decoder, names=Names(up="up_proj"))
