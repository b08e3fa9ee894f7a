"""DBRX: a LayerNorm without bias, queries, keys and values within a limit, sixteen experts of which a token has
four.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import keys
from albireo.models.blocks.experts import Names, experts, route
from albireo.models.blocks.layers import Ends, attention, embedding, head, limited, linear, norm
from albireo.models.blocks.layers import queries_keys_values as queries
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["DbrxForCausalLM"],
    "model_type": "dbrx",
    "vocab_size": 127,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 4,
    "max_seq_len": 128,
    "attn_config": {"clip_qkv": 0.8, "kv_n_heads": 2, "model_type": "", "rope_theta": 20000.0},
    "ffn_config": {
        "ffn_hidden_size": 36,
        "moe_num_experts": 6,
        "moe_top_k": 3,
        "moe_jitter_eps": 0,
        "moe_loss_weight": 0.05,
        "moe_normalize_expert_weights": 1.0,
        "model_type": "",
    },
    "rope_theta": 20000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


CONFIG = ConfigRules(
    keys=keys("clip_qkv"),
    tables=("attn_config", "ffn_config"),
    names={
        "hidden_size": "d_model",
        "intermediate_size": "ffn_hidden_size",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "kv_n_heads",
        "max_position_embeddings": "max_seq_len",
        "num_local_experts": "moe_num_experts",
        "num_experts_per_tok": "moe_top_k",
    },
    blocks=BlockSettings(is_layer_norm=True, has_norm_bias=False),
    experts="mixtral",
    built_in={"moe_normalize_expert_weights": 1, "ffn_act_fn": {"name": "silu"}},
    defaults={
        "rms_norm_eps": 1e-5,
        "kv_n_heads": 1,
        "ffn_hidden_size": 3584,
        "moe_num_experts": 4,
        "moe_top_k": 1,
        "moe_normalize_expert_weights": 1.0,
    },
    # of training; and the width again
    ignorable=keys("emb_pdrop hidden_size moe_jitter_eps moe_loss_weight num_key_value_heads auto_map"),
)
_EXPERTS = Names("ffn", "w1", "v1", "w2", router="router.layer")
_ENDS = Ends("transformer.wte.weight", "transformer.norm_f")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config, _ENDS)
    for layer in range(config.num_layers):
        x = _layer(b, config, x, layer, rope)
    return head(b, config, x, _ENDS)


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec) -> Value:
    """[T, E] float32."""
    name = f"transformer.blocks.{layer}"
    of = f"{name}.norm_attn_norm"
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{of}.norm_1.weight", "norm")
        parts = limited(b, c, queries(b, c, h, f"{of}.attn", bias=False, joined="Wqkv"))
        a = attention(b, c, parts, layer, rope, None)
        o = linear(b, c, a, f"{of}.attn.out_proj", c.hidden_size, "o", False, "row")
        with b.part("o"):
            x = b.add(x, o)
    with b.part(f"layers.{layer}.moe"):
        h = norm(b, c, x, f"{of}.norm_2.weight", "norm")
        ids, weights = route(b, c, h, f"{name}.ffn", _EXPERTS)
        pairs = experts(b, c, h, ids, f"{name}.ffn.experts", _EXPERTS)
        with b.part("combine"):
            return b.add(x, b.combine(pairs, weights))
