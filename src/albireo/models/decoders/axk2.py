"""A.X K2: DeepSeek V3.2 whose norms have a gate of few channels, and whose attention has one that comes with
queries.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields
from albireo.models.blocks.experts import DEEPSEEK, moe_block, with_experts
from albireo.models.blocks.indexer import Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import latent_attention
from albireo.models.blocks.layers import embedding, head, linear, unrounded_norm
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.decoders import deepseek_v32
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    **{key: value for key, value in deepseek_v32.TINY.items() if key not in ("rope_scaling", "n_group", "topk_group")},
    "architectures": ["AXK2ForCausalLM"],
    "model_type": "axk2",
    "vocab_size": 121,
    "n_shared_experts": 1,
    "gated_norm_rank": 6,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value."""
    blocks = indexed_blocks(fields, heads=16)
    assert blocks.latent is not None
    rank = fields.integer("gated_norm_rank", 1, MAX_WIDTH, default=16)
    return replace(blocks, latent=replace(blocks.latent, gates_with_queries=True), norm_rank=rank)


CONFIG = replace(
    deepseek_v32.CONFIG,
    class_names=("AXK2ForCausalLM",),
    deciding=frozenset(),
    blocks=_blocks,
    defaults={
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 512,
        "routed_scaling_factor": 2.5,
        "first_k_dense_replace": 1,
        "q_lora_rank": 384,
        "kv_lora_rank": 128,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
    },
)
IGNORABLE_WEIGHTS = deepseek_v32.IGNORABLE_WEIGHTS


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = latent_rope_spec(c, max_model_len)
    indexer = Indexer(b, c, rope)
    x = embedding(b, c)
    assert c.experts is not None
    for layer, has_experts in enumerate(c.experts.layers):
        name = f"model.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            h = _gated_norm(b, c, x, f"{name}.input_layernorm")
            o = latent_attention(b, c, h, layer, rope, choose=indexer.choose)
            with b.part("o"):
                x = b.add(x, o)
        if not has_experts:
            x = moe_block(b, c, x, layer, DEEPSEEK)
            continue
        with b.part(f"layers.{layer}.moe"):
            h = _gated_norm(b, c, x, f"{name}.post_attention_layernorm")
            x = with_experts(b, c, x, h, f"{name}.mlp", DEEPSEEK)
    return head(b, c, x)


def _gated_norm(b: GraphBuilder, c: ModelConfig, x: Value, name: str) -> Value:
    """y * sigmoid(up(silu(down(y)))) with y = norm(x), rounded. Args: name: of what the three lie in."""
    with b.part("norm"):
        y = unrounded_norm(b, c, x, f"{name}.norm.weight")
        rounded = b.cast(y, c.dtype)
    low = linear(b, c, rounded, f"{name}.W_down", c.blocks.norm_rank, "norm_low", False, "router")
    with b.part("norm_low"):
        low = b.cast(b.unary(low, "silu"), c.dtype)
    gate = linear(b, c, low, f"{name}.W_up", c.hidden_size, "norm_gate", False, "router")
    with b.part("norm_gate"):
        return b.cast(b.mul(y, b.unary(gate, "sigmoid")), c.dtype)
