"""Jamba (v0.1, 1.5, 1.6, 1.7, Reasoning 3B): layers of Mamba 1, of which b, c and how long a token counts are normed,
and a few with attention that does not rotate; an FFN in each, or experts.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.feed_forward import FFNNames, mlp_block
from albireo.models.blocks.layers import LLAMA_ENDS, Norms
from albireo.models.blocks.mamba1_mixer import mamba1_block
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.mamba1_settings import Mamba1Keys, Mamba1Settings, parse_mamba1
from albireo.models.settings.tiny import TINY_LLAMA

#: 80 channels of 12 numbers each; the second layer of three has attention, and the others have experts.
TINY = TINY_LLAMA | {
    "architectures": ["JambaForCausalLM"],
    "model_type": "jamba",
    "vocab_size": 113,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 3,
    "attn_layer_period": 3,
    "attn_layer_offset": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "expert_layer_period": 2,
    "expert_layer_offset": 0,
    "rms_norm_eps": 1e-3,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_dt_rank": 5,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "bos_token_id": 1,
}

_KEYS = Mamba1Keys(
    "mamba_d_state", "mamba_d_conv", "mamba_expand", "mamba_dt_rank", "mamba_conv_bias", "mamba_proj_bias"
)
#: What a list of layers may call them -> whether they keep a state.
_WORDS = {"linear_attention": True, "mamba": True, "full_attention": False, "attention": False}


def _mamba(fields: Fields) -> Mamba1Settings | None:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    period = fields.integer("attn_layer_period", 1, MAX_LAYERS, default=8)
    offset = fields.integer("attn_layer_offset", 0, period - 1, default=min(4, period - 1))
    found = tuple(layer % period != offset for layer in range(layers))
    for key in ("layers_block_type", "layer_types"):
        kinds = fields.texts(key)
        if kinds and tuple(_WORDS.get(kind) for kind in kinds) != found:
            fields.fail(key, list(kinds), "contradicts attn_layer_period and attn_layer_offset")
    return parse_mamba1(fields, _KEYS, found, "weighed")


CONFIG = ConfigRules(
    experts="jamba",
    defaults={"num_key_value_heads": 8, "max_position_embeddings": 262144, "rms_norm_eps": 1e-6},
    blocks=BlockSettings(has_rotation=False),
    mamba=_mamba,
    has_rope=False,
    built_in={"mamba_inner_layernorms": True},
    # of how others run it
    ignorable=keys(
        "use_mamba_kernels use_mambapy use_associative_scan num_logits_to_keep calc_logits_for_entire_prompt n_ctx"
    ),
    class_names=("JambaForCausalLM",),
)
_ENDS = LLAMA_ENDS._replace(norm="model.final_layernorm")
_NAMES = Names("feed_forward", "gate_proj", "up_proj", "down_proj", router="router", norm="pre_ff_layernorm")
_NORMS, _FFN = Norms("pre_ff_layernorm"), FFNNames("feed_forward")


def _state(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    name = f"model.layers.{layer}"
    return mamba1_block(b, c, x, layer, f"{name}.input_layernorm.weight", f"{name}.mamba")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    dense = partial(mlp_block, norms=_NORMS, names=_FFN)
    ffn = dense if config.experts is None else partial(moe_block, names=_NAMES)
    return decoder(config, max_model_len, ffn=ffn, state=_state, ends=_ENDS)
