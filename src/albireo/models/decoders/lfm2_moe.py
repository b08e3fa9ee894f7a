"""LFM2 with experts (8B-A1B): the layers of the dense one; but in the first ones, experts that are chosen by sigmoids
and a bias in place of the FFN.
"""

from __future__ import annotations

from albireo.models.blocks.short_conv import short_conv_decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders.lfm2 import DEFAULTS

#: A dense layer before three with seven experts of 28 channels, of which a token has three.
TINY = {
    "architectures": ["Lfm2MoeForCausalLM"],
    "model_type": "lfm2_moe",
    "vocab_size": 143,
    "hidden_size": 40,
    "intermediate_size": 68,
    "moe_intermediate_size": 28,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "layer_types": ["conv", "full_attention", "conv", "full_attention"],
    "conv_L_cache": 3,
    "conv_bias": False,
    "num_dense_layers": 1,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "use_expert_bias": True,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "max_position_embeddings": 128,
    "norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    experts="lfm2",
    defaults=DEFAULTS,
    names={"rms_norm_eps": "norm_eps"},
    older_names={"tie_embedding": "tie_word_embeddings"},
    deciding=frozenset({"tie_embedding"}),
    built_in={"use_pos_enc": True},
    recurrent="short_conv",
)
build = short_conv_decoder
