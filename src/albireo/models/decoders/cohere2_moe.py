"""Command with experts: as Command R7B, whose FFNs are experts behind the first layers, beside shared ones; norms may
subtract no mean.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, with_experts
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.layers import attention, embedding, head, linear, norm, queries_keys_values, windows
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense and rotates, though it sees all; the second has a window, the third sees all and does not.
TINY = TINY_LLAMA | {
    "architectures": ["Cohere2MoeForCausalLM"],
    "model_type": "cohere2_moe",
    "vocab_size": 137,
    "intermediate_size": 36,
    "prefix_dense_intermediate_size": 76,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.4,
    "rope_theta": 50000.0,
    "sliding_window": 15,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "prefix_dense_sliding_window_pattern": 1,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "num_shared_experts": 2,
    "shared_expert_combination_strategy": "average",
    "expert_selection_fn": "softmax",
    "norm_topk_prob": True,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "output_router_logits": False,
    "bos_token_id": 5,
    "pad_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    if fields.has("sliding_window") and fields.raw("sliding_window") is None:
        fields.unsupported("sliding_window", None, "a number: layers without a window do not rotate")
    if (scaling := fields.table("rope_scaling")) is not None:
        # its class keeps the key, and rotates as rope_parameters says
        fields.unsupported("rope_scaling", scaling, "it is said in rope_parameters, which transformers reads alone")
    bias = fields.flag("attention_bias", False)
    eps = fields.number("layer_norm_eps", 1e-30, 1.0, default=1e-5)
    is_layer_norm = fields.raw("rms_norm_eps") is None
    return BlockSettings(
        is_layer_norm=is_layer_norm,
        has_norm_bias=False,
        norm_eps=eps if is_layer_norm else None,
        qkv_bias=bias,
        o_bias=bias,
        is_parallel=True,
        has_ffn_norm=False,
        ffn_width=fields.optional_integer("prefix_dense_intermediate_size", 1, MAX_WIDTH),
        rotates_dense=fields.integer("prefix_dense_sliding_window_pattern", 1, MAX_LAYERS, default=1) == 1,
    )


def _windows(fields: Fields, layers: int) -> tuple[bool, ...]:
    """In all but each so many-th layer, the dense ones and those behind them counted by themselves."""
    of_dense = fields.integer("prefix_dense_sliding_window_pattern", 1, MAX_LAYERS, default=1)
    of_others = fields.integer("sliding_window_pattern", 1, MAX_LAYERS, default=4)
    dense = fields.integer("first_k_dense_replace", 0, layers, default=0)
    places = ((i, of_dense) if i < dense else (i - dense, of_others) for i in range(layers))
    return tuple(bool((i + 1) % each) for i, each in places)


CONFIG = ConfigRules(
    keys=keys("logit_scale"),
    blocks=_blocks,
    experts="cohere2",
    has_pairs_side_by_side=True,
    windows=_windows,
    head_dim=128,
    defaults={
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "num_experts_per_tok": 2,
        "tie_word_embeddings": True,
    },
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    turning, still = rope_spec(c, max_model_len), no_rotation(c)
    assert c.experts is not None
    x = embedding(b, c)
    for layer, window in enumerate(windows(c, max_model_len)):
        name, is_sparse = f"model.layers.{layer}", c.experts.layers[layer]
        rotates = c.windows[layer] is not None or (c.blocks.rotates_dense and not is_sparse)
        with b.part(f"layers.{layer}.attn"):
            h = norm(b, c, x, f"{name}.input_layernorm.weight", "norm")
            parts = queries_keys_values(b, c, h, f"{name}.self_attn", bias=c.blocks.qkv_bias)
            a = attention(b, c, parts, layer, turning if rotates else still, window)
            o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", c.blocks.o_bias, "row")
            with b.part("o"):
                x = b.add(x, o)
        if is_sparse:
            with b.part(f"layers.{layer}.moe"):
                x = with_experts(b, c, x, h, f"{name}.mlp", DEEPSEEK)
        else:
            with b.part(f"layers.{layer}.mlp"):
                y = gated_mlp(b, c, h, f"{name}.mlp", c.intermediate_size)
                with b.part("down"):
                    x = b.add(x, y)
    return head(b, c, x)
