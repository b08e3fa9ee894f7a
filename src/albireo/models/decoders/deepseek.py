"""DeepSeek MoE 16B: llama's attention; experts chosen by a softmax, beside shared ones."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["DeepseekForCausalLM"],
    "model_type": "deepseek",
    "vocab_size": 133,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "n_routed_experts": 10,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "scoring_func": "softmax",
}
CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    experts="deepseek_v1",
    defaults={"vocab_size": 102400, "max_position_embeddings": 2048},
    built_in={"scoring_func": "softmax", "moe_layer_freq": 1},
    ignorable=keys("ep_size seq_aux aux_loss_alpha"),
    class_names=("DeepseekForCausalLM",),
)
build = partial(decoder, ffn=partial(moe_block, names=DEEPSEEK))
