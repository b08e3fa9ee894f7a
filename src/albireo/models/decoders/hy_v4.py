"""Hunyuan 4: four residual streams; latent attention to chosen positions, with a gate of each channel of values and a
score more in each softmax; experts whose gates and ups are kept within a limit.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, mixture
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.hyper_connections import joined, streams_of, through
from albireo.models.blocks.indexer import Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import UNREAD, LatentNames, latent_attention
from albireo.models.blocks.layers import embedding, head, norm
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings, Hyper
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LATENT

#: Three streams; the first and the third of three layers choose for themselves, the first has no experts.
TINY = TINY_LATENT | {
    "architectures": ["HYV4ForCausalLM"],
    "model_type": "hy_v4",
    "vocab_size": 127,
    "rope_theta": 10000.0,
    "n_shared_experts": 1,
    "routed_scaling_factor": 2.827,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "swiglu_limit": 0.5,
    "index_topk": 12,
    "index_n_heads": 24,
    "index_head_dim": 12,
    "indexer_types": ["full", "shared", "full"],
    "hc_mult": 3,
    "hc_magnitude": 2.0,
    "hc_eps": 1e-6,
    "pad_token_id": 0,
}
_MAX_STREAMS = 16


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value."""
    eps = fields.number("rms_norm_eps", 1e-30, 1.0)
    blocks = indexed_blocks(fields, shares=True, heads=16, rotates_first=False, eps=eps)
    hyper = Hyper(
        fields.integer("hc_mult", 2, _MAX_STREAMS, default=4),
        fields.number("hc_magnitude", 0.0, 1e6, default=2.0),
        fields.number("hc_eps", 0.0, 1.0, default=1e-6),
    )
    return replace(blocks, hyper=hyper)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=_blocks,
    experts="hy_v4",
    windows="seeing_all",
    class_names=("HYV4ForCausalLM",),
    older_names={"num_local_experts": "n_routed_experts"},
    deciding=frozenset({"num_local_experts"}),
    defaults={
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 262144,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "n_shared_experts": 1,
        "routed_scaling_factor": 2.827,
        "first_k_dense_replace": 1,
        "swiglu_limit": 10.0,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "index_topk_freq": 4,
        "index_skip_topk_offset": 2,
    },
    built_in={**SIGMOIDS, "learnable_sink": True, "enable_ihc": True},
    # what sinks begin with in training; sums are of float32 anyway
    ignorable=UNREAD | keys("learnable_sink_init enable_lm_head_fp32"),
)
#: Layers behind the last guess further tokens.
IGNORABLE_WEIGHTS = ("model.mtp_layers.*", "mtp_layers.*", "model.layers.*.self_attn.indexer.*")
_NAMES = LatentNames(gate="gate_proj", gates_channels=True, sinks="sinks")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = latent_rope_spec(c, max_model_len)
    indexer = Indexer(b, c, rope)
    streams = streams_of(b, c, embedding(b, c))
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            streams = through(b, c, streams, f"{name}.attn_hc", partial(_attention, b, c, layer, rope, indexer))
        with b.part(f"layers.{layer}.{'moe' if _has_experts(c, layer) else 'mlp'}"):
            streams = through(b, c, streams, f"{name}.ffn_hc", partial(_ffn, b, c, layer))
    return head(b, c, joined(b, c, streams, "model.hc_head"))


def _has_experts(c: ModelConfig, layer: int) -> bool:
    return c.experts is not None and c.experts.layers[layer]


def _attention(b: GraphBuilder, c: ModelConfig, layer: int, rope: RopeSpec, indexer: Indexer, x: Value) -> Value:
    h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
    return latent_attention(b, c, h, layer, rope, names=_NAMES, choose=indexer.choose)


def _ffn(b: GraphBuilder, c: ModelConfig, layer: int, x: Value) -> Value:
    name = f"model.layers.{layer}"
    h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
    if _has_experts(c, layer):
        return mixture(b, c, h, f"{name}.mlp", DEEPSEEK)
    return gated_mlp(b, c, h, f"{name}.mlp", c.intermediate_size)
