"""MiniMax M3, text: attention of which each KV head chooses blocks of positions in most layers; part of each head
rotated, q and k normed head by head; experts chosen by sigmoids and a bias, beside a shared one.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.graph.op_numbers import SWIGLU_ALPHA, SWIGLU_LIMIT
from albireo.json_file import Fields, keys
from albireo.models.blocks.block_indexer import OLDER_NAMES, TABLE, BlockIndexer, parse_blocks
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.feed_forward import FFNNames, mlp_block
from albireo.models.blocks.layers import Norms, attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.tiny import TINY_LLAMA

#: Blocks of eight positions, of which a row sees three; the first of three layers sees all, and has no experts.
TINY = TINY_LLAMA | {
    "architectures": ["MiniMaxM3VLForCausalLM"],
    "model_type": "minimax_m3_vl_text",
    "vocab_size": 137,
    "hidden_size": 40,
    "intermediate_size": 28,
    "dense_intermediate_size": 60,
    "shared_intermediate_size": 36,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rotary_dim": 8,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
    "num_local_experts": 9,
    "num_experts_per_tok": 3,
    "routed_scaling_factor": 2.0,
    "swiglu_alpha": SWIGLU_ALPHA,
    "swiglu_limit": SWIGLU_LIMIT,
    "layer_types": ["full_attention", "minimax_m3_sparse", "minimax_m3_sparse"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "index_n_heads": 2,
    "index_head_dim": 12,
    "index_block_size": 8,
    "index_topk_blocks": 3,
    "index_local_blocks": 1,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for an impossible value; UnsupportedModel."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    heads = fields.integer("num_key_value_heads", 1, MAX_HEADS)
    dense = fields.integer("dense_intermediate_size", 1, MAX_WIDTH, default=12288)
    return BlockSettings(index=parse_blocks(fields, layers, heads), ffn_width=dense)


CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor rotary_dim"),
    head_dim=128,
    windows="read_elsewhere",
    tables=(TABLE,),
    older_names=OLDER_NAMES,
    experts="minimax_m3",
    activation="clamped_swiglu",
    multipliers=Multipliers(norm_plus=1.0),
    class_names=("MiniMaxM3VLForCausalLM", "MiniMaxM3VLTextForCausalLM"),
    blocks=_blocks,
    built_in={
        "swiglu_alpha": SWIGLU_ALPHA,
        "swiglu_limit": SWIGLU_LIMIT,
        "use_qk_norm": True,
        "qk_norm_type": "per_head",
        "use_gemma_norm": True,
        "use_routing_bias": True,
        "scoring_func": "sigmoid",
        "n_shared_experts": 1,
        "use_sparse_attention": True,
        "sparse_score_type": "max",
    },
    defaults={
        "rope_theta": 5000000.0,
        "rotary_dim": 64,
        "max_position_embeddings": 524288,
        "num_key_value_heads": 4,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "bos_token_id": 200034,
        "eos_token_id": 200020,
    },
    ignorable=keys("auto_map use_mtp num_mtp_modules mtp_transformer_layers num_nextn_predict_layers"),
)
#: Layers that guess further tokens.
IGNORABLE_WEIGHTS = ("model.mtp.*", "model.layers.*.self_attn.index_*")
_NAMES = Names(*("block_sparse_moe", "w1", "w3", "w2"), bias="e_score_correction_bias", shared="shared_experts")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = rope_spec(c, max_model_len)
    indexer = BlockIndexer(b, c, rope)
    assert c.experts is not None
    x = embedding(b, c)
    for layer, has_experts in enumerate(c.experts.layers):
        x = attention_block(b, c, x, layer, rope, qk_norm=True, choose=indexer.choose)
        if has_experts:
            x = moe_block(b, c, x, layer, _NAMES)
        else:
            x = mlp_block(b, c, x, layer, norms=Norms("post_attention_layernorm"), names=FFNNames())
    return head(b, c, x)
