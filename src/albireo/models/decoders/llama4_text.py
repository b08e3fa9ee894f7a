"""Llama 4 Scout and Maverick, text: one expert of each token, whose input is weighed, beside a shared one; layers that
rotate see chunks of a text, the others grow their queries.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import Names, experts
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp, mlp_block
from albireo.models.blocks.layers import (
    AttentionNames,
    attention_block,
    embedding,
    head,
    linear,
    unrounded_norm,
    windows,
)
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LLAMA

#: Five experts of 40 channels in the second layer, which does not rotate. Both chunks and growing begin early.
TINY = TINY_LLAMA | {
    "architectures": ["Llama4ForCausalLM"],
    "model_type": "llama4_text",
    "vocab_size": 127,
    "intermediate_size": 40,
    "intermediate_size_mlp": 72,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_theta": 500000.0,
    "use_qk_norm": True,
    "no_rope_layers": [1, 0],
    "attention_chunk_size": 20,
    "attn_temperature_tuning": True,
    "floor_scale": 16,
    "attn_scale": 0.1,
    "num_local_experts": 5,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}


def _blocks(fields: Fields) -> BlockSettings:
    period = fields.integer("floor_scale", 1, MAX_POSITIONS, default=8192)
    growth = fields.number("attn_scale", 0.0, 1e3, default=0.1)
    # the first files have a number
    tuning = "attn_temperature_tuning"
    is_number = type(fields.raw(tuning)) is int
    grows = fields.integer(tuning, 0, 2**31 - 1) > 0 if is_number else fields.flag(tuning, True)
    return BlockSettings(
        has_qk_norm=fields.flag("use_qk_norm", True),
        ffn_width=fields.integer("intermediate_size_mlp", 1, MAX_WIDTH, default=16384),
        sees_chunks=True,
        still_growth=growth if grows else 0.0,
        still_period=period,
    )


CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    blocks=_blocks,
    experts="llama4",
    windows="chunked",
    has_layers_without_rope=True,
    has_pairs_side_by_side=True,
    head_dim=128,
    defaults={
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 131072,
        "attention_chunk_size": 8192,
        "rope_theta": 500000.0,
    },
    # images are no part of it
    ignorable=keys("for_llm_compressor"),
    class_names=("Llama4ForCausalLM",),
)
_UNWEIGHED = AttentionNames(q_norm="", k_norm="")
_FFN = FFNNames("feed_forward")
_NAMES = Names("feed_forward", "gate_proj", "up_proj", "down_proj")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    ropes, seen = {True: rope_spec(c, max_model_len), False: no_rotation(c, max_model_len)}, windows(c, max_model_len)
    assert c.experts is not None
    x = embedding(b, c)
    for layer, rotates in enumerate(c.rotates):
        normed = c.blocks.has_qk_norm and rotates
        # norms without weights turn as what they norm does, but take back what a rotation stretches
        x = attention_block(
            b,
            c,
            x,
            layer,
            ropes[rotates],
            qk_norm=normed,
            is_norm_behind=normed and ropes[rotates].attention_factor != 1,
            window=seen[layer],
            names=_UNWEIGHED,
        )
        x = _moe_block(b, c, x, layer) if c.experts.layers[layer] else mlp_block(b, c, x, layer, names=_FFN)
    return head(b, c, x)


def _moe_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + expert(norm(x) * sigmoid(its logit)) + shared(norm(x)) of one layer, [T, E] float32."""
    settings, name = c.experts, f"model.layers.{layer}"
    assert settings is not None
    with b.part(f"layers.{layer}.moe"):
        with b.part("norm"):
            y = unrounded_norm(b, c, x, f"{name}.post_attention_layernorm.weight")
            h = b.cast(y, c.dtype)
        logits = linear(b, c, h, f"{name}.{_NAMES.block}.router", settings.count, "router", False, "router")
        with b.part("route"):
            # of one expert the weight is 1 where it is divided by itself: outputs are added as they are. GPUs keep the
            # choice that is made last before experts
            _, ones = b.route(logits, 1, True)
            ids, weights = b.route(logits, 1, False, **settings.rules)
            weighed = b.cast(b.combine(y, weights), c.dtype)
        pairs = experts(b, c, weighed, ids, f"{name}.{_NAMES.block}.experts", _NAMES)
        with b.part("combine"):
            x = b.add(x, b.combine(pairs, ones))
        with b.part("shared"):
            shared = gated_mlp(b, c, h, f"{name}.{_NAMES.block}.{_NAMES.shared}", settings.shared_width)
            return b.add(x, shared)
