"""GLM-5.3, text: residual streams that are mixed with each other; the delta rule with a rate of each channel in three
layers of four, in the fourth latent attention without rotation to positions that are chosen sixteen together; experts
of DeepSeek V3 with gates within a limit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_ROUNDS, MAX_STREAMS
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, mixture
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.gated_delta import channel_delta
from albireo.models.blocks.hyper_connections import mean_of, streams_of, through
from albireo.models.blocks.indexer import Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import UNREAD, latent_attention
from albireo.models.blocks.layers import embedding, head, norm
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings, Hyper
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.recurrent_settings import parse_recurrent
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LATENT

_STATE = "linear_attention"
#: Three streams; of four layers two see what one of them has chosen; four positions have one key.
TINY = TINY_LATENT | {
    "architectures": ["Glm5NextForCausalLM"],
    "model_type": "glm5_next_text",
    "vocab_size": 117,
    "moe_intermediate_size": 28,
    "num_hidden_layers": 4,
    "q_lora_rank": 24,
    "qk_rope_head_dim": 0,
    "layer_types": [_STATE, "indexed_attention", "indexed_attention", _STATE],
    "indexer_types": ["full", "full", "shared", "full"],
    "index_topk": 12,
    "index_n_heads": 24,
    "index_head_dim": 12,
    "index_kpool": 4,
    "index_kpool_always_select_tail": True,
    "linear_head_dim": 12,
    "linear_num_heads": 3,
    "linear_conv_kernel_dim": 4,
    "linear_lower_bound": -4.0,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "routed_scaling_factor": 2.5,
    "swiglu_limit": 0.5,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
    "hc_mult": 3,
    "hc_sinkhorn_iters": 5,
    "hc_eps": 1e-6,
    "pad_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel where rows may not see their own entry."""
    every = fields.integer("index_kpool", 1, MAX_POSITIONS, default=16)
    if every & (every - 1):
        fields.unsupported("index_kpool", every, "an entry is of a power of two of positions")
    blocks = indexed_blocks(fields, shares=True, heads=32, turns=False, every=every)
    assert blocks.latent is not None and blocks.index is not None
    if every > 1 and not fields.flag("index_kpool_always_select_tail", True):
        fields.unsupported("index_kpool_always_select_tail", False, "a row sees what has no entry yet, itself too")
    if blocks.index.count % every:
        fields.fail("index_topk", blocks.index.count, f"must be a multiple of index_kpool={every}")
    states = parse_recurrent(fields, "glm", len(blocks.index.own), fields.integer("hidden_size", 1, MAX_WIDTH))
    keeps = states.layers if states is not None else ()
    own = tuple(is_own and not state for is_own, state in zip(blocks.index.own, keeps, strict=True))
    attending = [is_own for is_own, state in zip(own, keeps, strict=True) if not state]
    if attending and not attending[0]:
        wanted = f"must say full of the first layer that is not {_STATE}"
        fields.fail("indexer_types", list(fields.texts("indexer_types")), wanted)
    return replace(
        blocks,
        latent=replace(blocks.latent, eps=fields.number("rms_norm_eps", 1e-30, 1.0)),
        index=replace(blocks.index, own=own, count=blocks.index.count + every - 1),
        has_rotation=False,
        hyper=Hyper(
            fields.integer("hc_mult", 2, MAX_STREAMS),
            2.0,
            fields.number("hc_eps", 0.0, 1.0),
            fields.integer("hc_sinkhorn_iters", 1, MAX_ROUNDS),
        ),
    )


CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    blocks=_blocks,
    experts="glm5",
    recurrent="glm",
    has_rope=False,
    class_names=("Glm5NextForCausalLM",),
    older_names={"num_local_experts": "n_routed_experts"},
    defaults={
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 1048576,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 288,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "first_k_dense_replace": 3,
        "routed_scaling_factor": 2.5,
        "swiglu_limit": 10.0,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 256,
        "qk_rope_head_dim": 0,
        "v_head_dim": 256,
        "hc_mult": 4,
        "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6,
    },
    built_in=dict(SIGMOIDS),
    # nothing is rotated
    ignorable=UNREAD | keys("rope_theta rope_scaling rope_parameters moe_router_dtype"),
)
#: What chooses among more positions than a sequence has is not read; towers lie beside text.
IGNORABLE_WEIGHTS = ("model.layers.*.self_attn.indexer.*", "model.visual.*", "visual.*")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens, which nothing depends on."""
    b, c = GraphBuilder(), config
    indexer = Indexer(b, c, None)
    streams = streams_of(b, c, embedding(b, c))
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            streams = through(b, c, streams, f"{name}.attn_hc", partial(_attention, b, c, layer, indexer))
        with b.part(f"layers.{layer}.mlp"):
            streams = through(b, c, streams, f"{name}.ffn_hc", partial(_ffn, b, c, layer))
    return head(b, c, mean_of(b, c, streams))


def _attention(b: GraphBuilder, c: ModelConfig, layer: int, indexer: Indexer, x: Value) -> Value:
    """What attention, or the recurrence, makes of the streams' sum."""
    h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
    if layer not in c.cached_layers:
        return channel_delta(b, c, h, layer)
    return latent_attention(b, c, h, layer, None, choose=indexer.choose)


def _ffn(b: GraphBuilder, c: ModelConfig, layer: int, x: Value) -> Value:
    h = norm(b, c, x, f"model.layers.{layer}.post_attention_layernorm.weight", "norm")
    assert c.experts is not None, "the architecture's rules read their keys"
    name = f"model.layers.{layer}.mlp"
    if c.experts.layers[layer]:
        return mixture(b, c, h, name, DEEPSEEK)
    return gated_mlp(b, c, h, name, c.intermediate_size, limit=c.experts.shared_limit)
