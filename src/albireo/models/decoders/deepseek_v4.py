"""DeepSeek V4: residual streams that are mixed with each other; attention to a window and to entries of several
positions each; experts in every layer, of the first layers by a table of tokens.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_ROUNDS, MAX_STREAMS
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, mixture
from albireo.models.blocks.hyper_connections import joined, streams_of, through
from albireo.models.blocks.layers import embedding, head, norm
from albireo.models.blocks.pooled_attention import PooledAttention, parse_pooled
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings, Hyper
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LLAMA

#: Three streams; a layer of each kind, of which the first has experts by a table.
TINY = TINY_LLAMA | {
    "architectures": ["DeepseekV4ForCausalLM"],
    "model_type": "deepseek_v4",
    "vocab_size": 109,
    "hidden_size": 40,
    "moe_intermediate_size": 28,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "head_dim": 20,
    "qk_rope_head_dim": 8,
    "q_lora_rank": 24,
    "o_groups": 2,
    "o_lora_rank": 12,
    "layer_types": ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"],
    "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 16},
    "compress_rope_theta": 160000.0,
    "sliding_window": 13,
    "index_topk": 5,
    "index_n_heads": 6,
    "index_head_dim": 12,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "scoring_func": "sqrtsoftplus",
    "swiglu_limit": 0.5,
    "mlp_layer_types": ["hash_moe", "moe", "moe"],
    "hc_mult": 3,
    "hc_sinkhorn_iters": 5,
    "hc_eps": 1e-6,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
#: What experts a token has, where it is not chosen.
TABLE = "gate.tid2eid"


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value; UnsupportedModel for what is not computed."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    hyper = Hyper(
        fields.integer("hc_mult", 2, MAX_STREAMS),
        2.0,
        fields.number("hc_eps", 0.0, 1.0),
        fields.integer("hc_sinkhorn_iters", 1, MAX_ROUNDS),
    )
    return BlockSettings(
        num_kv_heads=1,
        ffn_width=fields.integer("moe_intermediate_size", 1, 2**20),
        pooled=parse_pooled(fields),
        hyper=hyper,
        layer_windows=(fields.integer("sliding_window", 1, MAX_POSITIONS),) * layers,
    )


CONFIG = ConfigRules(
    blocks=_blocks,
    experts="deepseek_v4",
    windows="read_elsewhere",
    has_rope=False,
    class_names=("DeepseekV4ForCausalLM",),
    older_names={"num_local_experts": "n_routed_experts"},
    deciding=frozenset({"num_local_experts"}),
    defaults={
        "head_dim": 512,
        "max_position_embeddings": 1048576,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 6,
        "routed_scaling_factor": 1.5,
        "swiglu_limit": 10.0,
        "sliding_window": 128,
        "hc_mult": 4,
        "hc_sinkhorn_iters": 20,
        "hc_eps": 1e-6,
        "q_lora_rank": 1024,
        "o_groups": 8,
        "o_lora_rank": 1024,
        "index_n_heads": 64,
        "index_head_dim": 128,
        "index_topk": 512,
    },
    built_in={"norm_topk_prob": True, "topk_method": "noaux_tc"},
    ignorable=keys("num_nextn_predict_layers"),
)
#: Layers behind the last guess further tokens; and what chooses among more entries than a sequence has is not read.
IGNORABLE_WEIGHTS = ("mtp.*", "model.mtp.*", "model.layers.*.self_attn.compressor.indexer.*")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    attention = PooledAttention(b, c, max_model_len)
    streams = streams_of(b, c, embedding(b, c))
    for layer in range(c.num_layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            streams = through(b, c, streams, f"{name}.attn_hc", partial(_attention, b, c, layer, attention))
        with b.part(f"layers.{layer}.moe"):
            streams = through(b, c, streams, f"{name}.ffn_hc", partial(_experts, b, c, layer))
    return head(b, c, joined(b, c, streams, "model.hc_head"))


def _attention(b: GraphBuilder, c: ModelConfig, layer: int, attention: PooledAttention, x: Value) -> Value:
    return attention.layer(norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm"), layer)


def _experts(b: GraphBuilder, c: ModelConfig, layer: int, x: Value) -> Value:
    h = norm(b, c, x, f"model.layers.{layer}.post_attention_layernorm.weight", "norm")
    assert c.experts is not None, "the architecture's rules read their keys"
    return mixture(b, c, h, f"model.layers.{layer}.mlp", DEEPSEEK, TABLE if c.experts.by_token[layer] else "")
