"""Ling 3: the delta rule with a rate of each channel, which is held above a bound, in five layers of six, latent
attention with a gate of each head in the sixth; experts of DeepSeek V3.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.gated_delta import ChannelNames, channel_delta_block
from albireo.models.blocks.latent_attention import UNREAD, LatentNames, latent_attention_block, latent_blocks
from albireo.models.blocks.layers import Ends, embedding, head
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.decoders.kimi_linear import CONFIG as KIMI
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads of 12 keep a state in the first layer and the third; experts in groups behind a dense layer.
TINY = TINY_LLAMA | {
    "architectures": ["BailingHybridForCausalLM"],
    "model_type": "bailing_hybrid",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "head_dim": 12,
    "q_lora_rank": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "layer_group_size": 2,
    "short_conv_kernel_size": 4,
    "kda_safe_gate": True,
    "kda_lower_bound": -4.0,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "num_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "output_router_logits": False,
    "pad_token_id": 0,
}

CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    blocks=latent_blocks,
    experts="deepseek",
    recurrent="bailing",
    has_pairs_side_by_side=True,
    older_names=KIMI.older_names,
    deciding=KIMI.deciding,
    defaults={
        "max_position_embeddings": 262144,
        "n_routed_experts": 512,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "n_shared_experts": 1,
        "n_group": 8,
        "topk_group": 4,
        "first_k_dense_replace": 2,
        "routed_scaling_factor": 2.5,
        "rope_theta": 6000000.0,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    },
    built_in={
        "moe_router_enable_expert_bias": True,
        "score_function": "sigmoid",
        "use_bias": False,
        "use_qkv_bias": False,
        "use_rmsnorm": True,
    },
    ignorable=UNREAD | keys("mtp_loss_scaling_factor router_dtype"),
)
_BLOCK, _OUT = "attention", "dense"
_LATENT = LatentNames(_BLOCK, _OUT, "g_proj")
_STATE = ChannelNames(_BLOCK, _OUT, ("f_proj",), ("g_proj",))
_EXPERTS = Names(bias="gate.expert_bias", shared="shared_experts")
_ENDS = Ends(table="model.word_embeddings.weight")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, rope = GraphBuilder(), config, latent_rope_spec(config, max_model_len)
    x = embedding(b, c, _ENDS)
    for layer in range(c.num_layers):
        if layer in c.cached_layers:
            x = latent_attention_block(b, c, x, layer, rope, names=_LATENT)
        else:
            x = channel_delta_block(b, c, x, layer, _STATE)
        x = moe_block(b, c, x, layer, _EXPERTS)
    return head(b, c, x, _ENDS)
