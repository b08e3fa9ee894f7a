"""Step 3.5 and 3.7 Flash (StepFun): a gate of each head on what attention gives, more query heads in layers with a
window, which rotate otherwise; experts chosen by sigmoids and a bias, beside a shared one; gates that are cut behind
their activation, in some layers.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, mixture
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.layers import AttentionNames, attention_block, block_input, embedding, head, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.step3p5_keys import as_transformers_has_it
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense; those with a window have six heads, which rotate whole, the other four, of which half is.
TINY = TINY_LLAMA | {
    "architectures": ["Step3p5ForCausalLM"],
    "model_type": "step3p5",
    "vocab_size": 131,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_sliding_attention_heads": 6,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "full_attention": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 1.0,
            "high_freq_factor": 32.0,
            "partial_rotary_factor": 0.5,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 17,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_routed_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "share_expert_dim": 36,
    "moe_router_scaling_factor": 2.5,
    "swiglu_limits": [None, 0.3, 0.0],
    "swiglu_limits_shared": [0.4, 0.0, 0.5],
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for heads that KV heads do not divide."""
    layers = fields.integer("num_hidden_layers", 1, 2**12)
    usual, kv = (fields.integer(f"num_{of}_heads", 1, MAX_HEADS) for of in ("attention", "key_value"))
    local = fields.integer("num_sliding_attention_heads", 1, MAX_HEADS, default=usual)
    if local % kv:
        fields.fail("num_sliding_attention_heads", local, f"must be a multiple of num_key_value_heads={kv}")
    kinds = fields.texts("layer_types") or ("full_attention",) * layers
    heads = tuple(local if kind == "sliding_attention" else usual for kind in kinds)
    return BlockSettings(gates_heads=True, layer_heads=() if set(heads) == {usual} else heads)


CONFIG = ConfigRules(
    keys=keys("attention_bias mlp_bias partial_rotary_factor query_pre_attn_scalar"),
    windows="said",
    default_window=None,
    experts="step",
    head_dim=128,
    has_local_rope=True,
    multipliers=Multipliers(norm_plus=1.0),
    rewritten=as_transformers_has_it,
    older_names={
        "num_attention_groups": "num_key_value_heads",
        "moe_num_experts": "n_routed_experts",
        "moe_top_k": "num_experts_per_tok",
        "share_expert_dims": "share_expert_dim",
    },
    blocks=_blocks,
    defaults=sizes(
        4096, 11264, 45, 64, vocab_size=128815, num_key_value_heads=8, max_position_embeddings=128000, rms_norm_eps=1e-5
    ),
    built_in={
        "att_impl_type": "GQA",
        "moe_router_activation": "sigmoid",
        "norm_expert_weight": True,
        "use_head_wise_attn_gate": True,
        "use_moe": True,
        "use_moe_router_bias": True,
        "use_qk_norm": True,
        "zero_centered": True,
        "moe_every_n_layer": 1,
    },
    # what adds up a router's logits, and what others say of lengths and of layers that guess
    ignorable=keys("need_fp32_gate max_seq_len num_nextn_predict_layers mtp_layer_types mtp_mlp_layer_types"),
    class_names=("Step3p5ForCausalLM",),
)
_NAMES = AttentionNames(gate="g_proj")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, bias = GraphBuilder(), config.attention_bias
    experts = config.experts
    assert config.local_rope is not None and experts is not None
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        heads = config.blocks.layer_heads[layer] if config.blocks.layer_heads else config.num_heads
        is_local = config.windows[layer] is not None
        limit, shared_limit = experts.limits[layer], experts.shared_limits[layer]
        c = replace(config, num_heads=heads, rope=config.local_rope if is_local else config.rope)
        c = replace(c, experts=replace(experts, limit=limit, shared_limit=shared_limit))
        rope = rope_spec(c, max_model_len)
        x = attention_block(b, c, x, layer, rope, window=window, qkv_bias=bias, o_bias=bias, qk_norm=True, names=_NAMES)
        is_sparse = experts.layers[layer]
        with b.part(f"layers.{layer}.{'moe' if is_sparse else 'mlp'}"):
            h, name = block_input(b, c, x, layer, DEEPSEEK.norm), f"model.layers.{layer}.mlp"
            if is_sparse:
                y = mixture(b, c, h, name, DEEPSEEK)
            else:
                y = gated_mlp(b, c, h, name, c.intermediate_size, bias=c.mlp_bias, limit=shared_limit, is_late=True)
            with b.part("combine" if is_sparse else "down"):
                x = b.add(x, y)
    return head(b, config, x)
