"""LFM3: LFM2 with windows in some layers, which rotate by frequencies of their own, a gate on each head's output, and
norms of what is added.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import AttentionNames, Norms
from albireo.models.blocks.short_conv import ENDS, FFN, short_conv_block
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

#: The second layer sees a window and the fourth all; the others have a convolution of seven rows.
TINY = {
    "architectures": ["Lfm3ForCausalLM"],
    "model_type": "lfm3",
    "vocab_size": 139,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "layer_types": ["conv", "sliding_attention", "conv", "full_attention"],
    "sliding_window": 11,
    "conv_L_cache": 7,
    "conv_bias": False,
    "use_sandwich_norm": True,
    "use_attention_gate": True,
    "attention_bias": False,
    "max_position_embeddings": 128,
    "norm_eps": 1e-5,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(
        has_norm_behind=fields.flag("use_sandwich_norm", True), gates_heads=fields.flag("use_attention_gate", True)
    )


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    head_dim=128,
    defaults={
        "num_key_value_heads": 4,
        "max_position_embeddings": 128000,
        "tie_word_embeddings": True,
        "norm_eps": 1e-5,
        "rope_parameters": TINY["rope_parameters"],
    },
    names={"rms_norm_eps": "norm_eps"},
    windows="beside_convolutions",
    default_window=256,
    has_local_rope=True,
    blocks=_blocks,
    recurrent="short_conv_windows",
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    blocks = config.blocks
    behind = ("post_operator_norm", "post_ffn_norm") if blocks.has_norm_behind else (None, None)
    operator = Norms("operator_norm", behind[0])
    return decoder(
        config,
        max_model_len,
        ffn=partial(mlp_block, norms=Norms("ffn_norm", behind[1]), names=FFN),
        state=partial(short_conv_block, norms=operator),
        ends=ENDS,
        norms=operator,
        qk_norm=True,
        names=AttentionNames(gate="gate_proj" if blocks.gates_heads else ""),
    )
