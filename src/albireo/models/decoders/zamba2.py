"""Zamba 2 (1.2B, 2.7B, 7B): layers of Mamba 2; in front of some of them attention and an FFN, which these layers have
in common but for matrices of few channels, and which read the embeddings, too.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import (
    LLAMA_ENDS,
    attention,
    embedding,
    head,
    linear,
    queries_keys_values,
    unrounded_norm,
)
from albireo.models.blocks.mamba2_mixer import mamba_mixer
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings, SharedBlocks
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.mamba_settings import MambaKeys, MambaSettings, parse_mamba
from albireo.models.settings.tiny import TINY_LLAMA

#: Three layers have one of two blocks in turn. transformers holds back how little a token may count in prompts alone
#: (time_step_min, which is of training).
TINY = TINY_LLAMA | {
    "architectures": ["Zamba2ForCausalLM"],
    "model_type": "zamba2",
    "vocab_size": 127,
    "hidden_size": 40,
    "intermediate_size": 52,
    "num_hidden_layers": 5,
    "layers_block_type": ["mamba", "hybrid", "hybrid", "mamba", "hybrid"],
    "hybrid_layer_ids": [1, 2, 4],
    "num_mem_blocks": 2,
    "adapter_rank": 8,
    "use_shared_attention_adapter": True,
    "use_mem_rope": True,
    "num_key_value_heads": 4,
    "attention_head_dim": 20,
    "attention_hidden_size": 80,
    "kv_channels": 10,
    "num_query_groups": 4,
    "rms_norm_eps": 1e-5,
    "hidden_act": "gelu",
    "add_bias_linear": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "n_mamba_heads": 4,
    "mamba_headdim": 20,
    "mamba_ngroups": 2,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "use_conv_bias": True,
    "use_long_context": False,
    "time_step_min": 1e-9,
    "bos_token_id": 1,
}

_KEYS = MambaKeys(
    "n_mamba_heads",
    "mamba_headdim",
    "mamba_ngroups",
    "mamba_d_state",
    "mamba_d_conv",
    "use_conv_bias",
    "add_bias_linear",
)
_DEFAULTS = MambaSettings((), 8, 0, 1, 64, 4, True, False)
#: What layers_block_type calls a layer -> whether it has a block in front of its state.
_KINDS = {"mamba": False, "linear_attention": False, "hybrid": True}
#: Of the norm behind states, whatever is said of others.
_EPS = 1e-5


def _hybrid(fields: Fields) -> tuple[int, ...]:
    kinds, layers = fields.texts("layers_block_type"), fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    for kind in kinds:
        if kind not in _KINDS:
            fields.unsupported("layers_block_type", kind, f"supported: {', '.join(_KINDS)}")
    if len(kinds) != layers:
        fields.fail("layers_block_type", list(kinds), f"must be one word for each of num_hidden_layers={layers}")
    found = tuple(i for i, kind in enumerate(kinds) if _KINDS[kind])
    if fields.raw("hybrid_layer_ids") not in (None, list(found)):
        fields.fail("hybrid_layer_ids", fields.raw("hybrid_layer_ids"), "contradicts layers_block_type")
    return found


def _blocks(fields: Fields) -> BlockSettings:
    hidden, heads = fields.integer("hidden_size", 1, MAX_WIDTH), fields.integer("num_attention_heads", 1, MAX_HEADS)
    if fields.integer("attention_head_dim", 1, MAX_HEAD_DIM) * heads != 2 * hidden:
        fields.unsupported(
            "attention_head_dim", fields.raw("attention_head_dim"), f"heads must make {2 * hidden} channels"
        )
    if not fields.flag("tie_word_embeddings", True):
        fields.unsupported("tie_word_embeddings", False, "transformers shares no blocks then, either")
    width = fields.integer("intermediate_size", 1, MAX_WIDTH, default=4 * hidden)
    if fields.raw("ffn_hidden_size") not in (None, width):  # said twice
        fields.unsupported("ffn_hidden_size", fields.raw("ffn_hidden_size"), f"it must be intermediate_size={width}")
    kv_heads = fields.integer("num_key_value_heads", 1, MAX_HEADS, default=heads)
    adapts = fields.flag("use_shared_attention_adapter", False)
    if adapts and kv_heads != heads:
        fields.unsupported(
            "num_key_value_heads", kv_heads, "with use_shared_attention_adapter it must be num_attention_heads"
        )
    return BlockSettings(
        has_rotation=fields.flag("use_mem_rope", False),
        shared=SharedBlocks(
            _hybrid(fields),
            fields.integer("num_mem_blocks", 1, MAX_LAYERS, default=1),
            fields.integer("adapter_rank", 1, MAX_WIDTH, default=128),
            adapts,
        ),
    )


def _mamba(fields: Fields) -> MambaSettings | None:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    found = parse_mamba(fields, _KEYS, (True,) * layers, _DEFAULTS, expand="mamba_expand")
    assert found is not None, "every layer keeps a state"
    for key, value, wanted in ((_KEYS.bias, found.has_bias, False), (_KEYS.conv_bias, found.has_conv_bias, True)):
        if value != wanted:
            fields.unsupported(key, value, f"it must be {str(wanted).lower()}")
    return replace(found, norm_eps=_EPS)


CONFIG = ConfigRules(
    names={"head_dim": "attention_head_dim"},
    defaults={"max_position_embeddings": 4096, "tie_word_embeddings": True, "hidden_act": "gelu", "rms_norm_eps": 1e-5},
    ffn_factor=4,
    activation="exact_gate",
    blocks=_blocks,
    mamba=_mamba,
    built_in={"gated_linear_unit": True, "use_shared_mlp_adapter": True},
    # of training, of how others run it, and numbers that follow from others
    ignorable=keys(
        "time_step_min time_step_max time_step_floor chunk_size use_mamba_kernels use_mem_eff_path num_logits_to_keep",
        "attention_hidden_size kv_channels num_query_groups",
    ),
    class_names=("Zamba2ForCausalLM",),
)
_ENDS = LLAMA_ENDS._replace(norm="model.final_layernorm")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, scale = GraphBuilder(), (config.head_dim / 2) ** -0.5
    rope = rope_spec(config, max_model_len) if all(config.rotates) else no_rotation(config)
    c = replace(config, multipliers=replace(config.multipliers, attention=scale))
    first = x = embedding(b, c, _ENDS)
    for layer in range(c.num_layers):
        name, read = f"model.layers.{layer}", x
        if layer in c.cached_layers:
            read = _with_block(b, c, x, first, layer, rope)
            name = f"{name}.mamba_decoder"
        with b.part(f"layers.{layer}.attn"):
            with b.part("norm"):
                h = b.cast(unrounded_norm(b, c, read, f"{name}.input_layernorm.weight"), c.dtype)
            y = mamba_mixer(b, c, h, f"{name}.mamba")
            with b.part("out"):
                x = b.add(x, y)
    return head(b, c, x, _ENDS)


def _with_block(b: GraphBuilder, c: ModelConfig, x: Value, first: Value, layer: int, rope: RopeSpec) -> Value:
    """x + a linear of what the layer's block makes of x and the embeddings, side by side."""
    shared = c.blocks.shared
    assert shared is not None, "the architecture's rules read its keys"
    turn = shared.layers.index(layer)
    name = f"model.layers.{shared.layers[turn % shared.count]}.shared_transformer"
    with b.part(f"layers.{layer}.shared"):
        with b.part("norm"):
            weight = b.weight(f"{name}.input_layernorm.weight", (2 * c.hidden_size,), "float32")
            h = b.cast(b.rms_norm(b.join_heads(x, first, 1), weight, c.rms_norm_eps), c.dtype)
        parts = queries_keys_values(b, c, h, f"{name}.self_attn", bias=False)
        if shared.adapts_attention:
            for p in parts:
                module = f"{name}.self_attn.linear_{p}_adapter_list.{turn}"
                parts[p] = _adapted(b, c, parts[p], h, module, shared.rank, p)
        a = attention(b, c, parts, turn, rope, None)
        o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", False, "row")
        with b.part("ffn_norm"):
            h = b.cast(unrounded_norm(b, c, o, f"{name}.pre_ff_layernorm.weight"), c.dtype)
        y = _ffn(b, c, h, f"{name}.feed_forward", turn, shared.rank)
        with b.part("down"):
            y = b.cast(y, c.dtype)
        y = linear(b, c, y, f"model.layers.{layer}.linear", c.hidden_size, "into", False, None)
        with b.part("into"):
            return b.add(x, y)


def _ffn(b: GraphBuilder, c: ModelConfig, h: Value, name: str, turn: int, rank: int) -> Value:
    width, both = c.intermediate_size, {}
    low = linear(b, c, h, f"{name}.gate_up_proj_adapter_list.{turn}.0", rank, "low", False, None)
    with b.part("low"):
        low = b.cast(low, c.dtype)
    for place, p in enumerate(("gate", "up")):
        rows = ((place * width, (place + 1) * width),)
        y = linear(b, c, h, f"{name}.{p}_proj", width, p, False, "ffn", RowsOf(f"{name}.gate_up_proj", rows))
        module = f"{name}.gate_up_proj_adapter_list.{turn}.1"
        more = linear(b, c, low, f"{module}.{p}", width, f"{p}_more", False, "ffn", RowsOf(module, rows))
        with b.part(f"{p}_more"):
            both[p] = b.add(y, more)
    with b.part("act"):
        m = b.cast(b.mul(b.unary(both["gate"], c.hidden_act), both["up"]), c.dtype)
    return linear(b, c, m, f"{name}.down_proj", c.hidden_size, "down", False, "row")


def _adapted(b: GraphBuilder, c: ModelConfig, y: Value, h: Value, module: str, rank: int, part: str) -> Value:
    """y + what the layer adds to it by itself."""
    low = linear(b, c, h, f"{module}.0", rank, f"{part}_low", False, None)
    with b.part(f"{part}_low"):
        low = b.cast(low, c.dtype)
    more = linear(b, c, low, f"{module}.1", int(y.type.dims[-1]), f"{part}_more", False, "heads")
    with b.part(f"{part}_more"):
        return b.add(y, more)
