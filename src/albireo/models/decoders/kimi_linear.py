"""Kimi Linear (48B-A3B): the delta rule with a rate of each channel in three layers of four, latent attention without
rotation in the fourth; experts of DeepSeek V3.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.gated_delta import channel_delta_block
from albireo.models.blocks.latent_attention import UNREAD, latent_attention_block, unrotated_latent_blocks
from albireo.models.blocks.layers import embedding, head
from albireo.models.config import ConfigRules, ModelConfig

#: Three heads of 12 that keep a state; twelve experts of 36 channels behind a dense layer. Layers are counted from one.
TINY = {
    "architectures": ["KimiLinearForCausalLM"],
    "model_type": "kimi_linear",
    "vocab_size": 127,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "mla_use_nope": True,
    "linear_attn_config": {
        "full_attn_layers": [2, 4],
        "kda_layers": [1, 3],
        "head_dim": 12,
        "num_heads": 3,
        "short_conv_kernel_size": 4,
    },
    "model_max_length": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "num_experts": 12,
    "num_experts_per_token": 3,
    "moe_intermediate_size": 36,
    "num_shared_experts": 2,
    "num_expert_group": 1,
    "topk_group": 1,
    "moe_renormalize": True,
    "moe_router_activation_func": "sigmoid",
    "routed_scaling_factor": 2.446,
    "first_k_dense_replace": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    blocks=unrotated_latent_blocks,
    experts="deepseek",
    recurrent="kimi",
    has_rope=False,
    older_names={
        "model_max_length": "max_position_embeddings",
        "moe_renormalize": "norm_topk_prob",
        "num_expert_group": "n_group",
        "num_experts": "n_routed_experts",
        "num_local_experts": "n_routed_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "num_shared_experts": "n_shared_experts",
    },
    deciding=keys(
        "model_max_length moe_renormalize num_expert_group num_experts_per_token num_shared_experts",
    ),
    defaults={
        "max_position_embeddings": 1048576,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.446,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "rms_norm_eps": 1e-5,
    },
    built_in={
        "mla_use_nope": True,
        "moe_layer_freq": 1,
        "moe_router_activation_func": "sigmoid",
        "use_grouped_topk": True,
    },
    # nothing is rotated
    ignorable=UNREAD | keys("rope_theta rope_scaling rope_parameters"),
)
_EXPERTS = Names("block_sparse_moe", "w1", "w3", "w2", shared="shared_experts")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens, which nothing depends on."""
    b = GraphBuilder()
    x = embedding(b, config)
    assert config.experts is not None
    for layer in range(config.num_layers):
        if layer in config.cached_layers:
            x = latent_attention_block(b, config, x, layer, None)
        else:
            x = channel_delta_block(b, config, x, layer)
        has_experts = config.experts.layers[layer]  # an FFN lies elsewhere
        x = moe_block(b, config, x, layer, _EXPERTS) if has_experts else mlp_block(b, config, x, layer)
    return head(b, config, x)
