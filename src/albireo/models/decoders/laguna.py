"""Laguna (poolside): a gate of each head, or of each channel, on what attention gives; layers that differ in how many
query heads they have, and those with a window in how they rotate; experts chosen by sigmoids and a bias, beside a
shared one.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.layers import AttentionNames, attention_block, embedding, head, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense; those with a window have six heads, which rotate whole, the other four, of which half is.
TINY = TINY_LLAMA | {
    "architectures": ["LagunaForCausalLM"],
    "model_type": "laguna",
    "vocab_size": 131,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads_per_layer": [6, 4, 6],
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "gating": True,
    "rope_parameters": {
        "full_attention": {
            "rope_type": "yarn",
            "rope_theta": 500000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.5,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    },
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 17,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "moe_routed_scaling_factor": 2.5,
    "moe_apply_router_weight_on_input": False,
    "moe_router_logit_softcapping": 0.0,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError, UnsupportedModel for heads or gates that are not computed."""
    if (part := fields.raw("partial_rotary_factor")) is not None:
        fields.unsupported("partial_rotary_factor", part, "it is said of each kind of layers, in rope_parameters")
    gating = fields.raw("gating")
    if gating not in (None, True, "per-head", "per-element"):
        fields.unsupported("gating", gating, "supported: true, per-head, per-element")
    return BlockSettings(gates_heads=gating != "per-element", gate_kind="softplus", layer_heads=_heads(fields))


def _heads(fields: Fields) -> tuple[int, ...]:
    """Of each layer; empty where all have as many."""
    given, layers = fields.raw("num_attention_heads_per_layer"), fields.integer("num_hidden_layers", 1, 2**12)
    usual, kv = (fields.integer(f"num_{of}_heads", 1, MAX_HEADS) for of in ("attention", "key_value"))
    heads = [usual] * layers if given is None else given
    is_list = isinstance(heads, list) and len(heads) == layers
    if not is_list or not all(type(each) is int and 1 <= each <= MAX_HEADS and each % kv == 0 for each in heads):
        rule = f"must be, for each of {layers} layers, a multiple of num_key_value_heads={kv}"
        fields.fail("num_attention_heads_per_layer", given, rule)
    return () if set(heads) == {usual} else tuple(heads)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    windows="said",
    default_window=512,
    experts="laguna",
    head_dim=128,
    has_local_rope=True,
    blocks=_blocks,
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "num_experts_per_tok": 8,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        },
    },
    built_in={"moe_apply_router_weight_on_input": False},
)
_NAMES = Names(bias="experts.e_score_correction_bias", shared="shared_expert")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, names = GraphBuilder(), AttentionNames(gate="g_proj")
    assert config.local_rope is not None
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        heads = config.blocks.layer_heads[layer] if config.blocks.layer_heads else config.num_heads
        is_local = config.windows[layer] is not None
        c = replace(config, num_heads=heads, rope=config.local_rope if is_local else config.rope)
        rope = rope_spec(c, max_model_len)
        x = attention_block(b, c, x, layer, rope, window=window, qk_norm=True, names=names)
        x = moe_block(b, c, x, layer, _NAMES)
    return head(b, config, x)
