"""DeepSeek V3.2: DeepSeek V3 whose positions choose, of those before them, index_topk that they see."""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.indexer import Indexer, indexed_blocks
from albireo.models.blocks.latent_attention import latent_attention_block
from albireo.models.blocks.layers import embedding, head
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ModelConfig
from albireo.models.decoders import deepseek_v3

TINY = {
    **deepseek_v3.TINY,
    "architectures": ["DeepseekV32ForCausalLM"],
    "model_type": "deepseek_v32",
    "vocab_size": 111,
    "num_hidden_layers": 2,
    "index_topk": 12,
    "index_n_heads": 24,
    "index_head_dim": 12,
}
CONFIG = replace(
    deepseek_v3.CONFIG,
    blocks=indexed_blocks,
    windows="seeing_all",
    older_names={"num_experts": "n_routed_experts"},
    deciding=frozenset({"num_experts"}),
    built_in={**deepseek_v3.CONFIG.built_in, "indexer_rope_interleave": False},
    # which say of layers that guess tokens what they share, and in what a router is computed
    ignorable=deepseek_v3.CONFIG.ignorable | keys("index_share_for_mtp_iteration moe_router_dtype"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = latent_rope_spec(config, max_model_len)
    indexer = Indexer(b, config, rope)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = latent_attention_block(b, config, x, layer, rope, choose=indexer.choose)
        x = moe_block(b, config, x, layer, DEEPSEEK)
    return head(b, config, x)


#: What chooses among more positions than a sequence has is not read.
IGNORABLE_WEIGHTS = ("model.layers.*.self_attn.indexer.*",)
