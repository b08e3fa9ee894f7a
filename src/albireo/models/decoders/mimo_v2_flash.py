"""MiMo V2 Flash: layers with a window have more KV heads than others, a score more in each softmax, and a rotation of
their own; values are narrower than keys; experts chosen by sigmoids and a bias.

Values lie in the cache as wide as keys, zeros behind them, and attention gives their channels alone.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.layers import AttentionNames, attention_block, embedding, head, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: Keys of 24 channels, of which 8 are rotated, and values of 16; one KV head, two in layers with a window. Of the three
#: layers the first has neither a window nor experts.
TINY = TINY_LLAMA | {
    "architectures": ["MiMoV2FlashForCausalLM"],
    "model_type": "mimo_v2_flash",
    "vocab_size": 131,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "head_dim": 24,
    "v_head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "attention_value_scale": 0.707,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.334},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.334},
    },
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "sliding_window": 17,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_routed_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a bad value; UnsupportedModel where layers with a window have other heads of queries."""
    heads, full = (fields.integer(f"num_{of}_heads", 1, MAX_HEADS) for of in ("attention", "key_value"))
    local = fields.optional_integer("swa_num_key_value_heads", 1, MAX_HEADS) or 2 * full
    for key, count in (("num_key_value_heads", full), ("swa_num_key_value_heads", local)):
        if heads % count:
            fields.fail("num_attention_heads", heads, f"must be a multiple of {key}={count}")
    dim = fields.integer("head_dim", 2, MAX_HEAD_DIM)
    values = fields.integer("v_head_dim", 1, dim)
    for key, usual in (("num_attention_heads", heads), ("head_dim", dim), ("v_head_dim", values)):
        said = fields.optional_integer(f"swa_{key}", 1, 2**20)
        if said not in (None, usual):
            fields.unsupported(f"swa_{key}", said, f"must be {key}={usual}")
    return BlockSettings(
        num_kv_heads=local,
        full_num_kv_heads=full,
        value_dim=values if values < dim else 0,
        value_factor=fields.optional_number("attention_value_scale", 1e-6, 1e6) or 1.0,
    )


CONFIG = ConfigRules(
    keys=keys("attention_bias partial_rotary_factor"),
    windows="mimo",
    default_window=129,
    experts="mimo",
    has_local_rope=True,
    blocks=_blocks,
    built_in={
        **{key: value for key, value in SIGMOIDS.items() if key != "moe_layer_freq"},
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
    },
    defaults={
        "topk_group": 1,
        "bos_token_id": 1,
        "num_key_value_heads": 4,
        "head_dim": 192,
        "v_head_dim": 128,
        "attention_value_scale": 0.707,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000000.0,
        "partial_rotary_factor": 0.334,
    },
    older_names={"layernorm_epsilon": "rms_norm_eps", "swa_rope_theta": "rope_local_base_freq"},
    # what it says of chunks is the window's length once more
    ignorable=keys("attention_chunk_size hybrid_block_size n_shared_experts attention_projection_layout"),
    class_names=("MiMoV2FlashForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, names = GraphBuilder(), AttentionNames(sinks="attention_sink_bias")
    ropes = {is_local: rope_spec(config, max_model_len, is_local=is_local) for is_local in (True, False)}
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        is_local = config.windows[layer] is not None
        c, rope = config if is_local else config.without_windows, ropes[is_local]
        x = attention_block(b, c, x, layer, rope, window=window, o_bias=False, sinks=is_local, names=names)
        x = moe_block(b, config, x, layer, DEEPSEEK)
    return head(b, config, x)
