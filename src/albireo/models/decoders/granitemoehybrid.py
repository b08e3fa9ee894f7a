"""Granite 4.0, with Mamba 2 layers (H Tiny, Small, Micro) or with attention alone (Micro): Granite's multipliers; an
FFN in every layer, beside experts or by itself.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, experts, route
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp
from albireo.models.blocks.layers import norm
from albireo.models.blocks.mamba2_mixer import mamba_block
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.decoders.granite import MULTIPLIERS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.mamba_settings import MAMBA_DEFAULTS, MAMBA_KEYS, MambaSettings, parse_mamba
from albireo.models.settings.tiny import TINY_LLAMA

#: Four heads of 20, which share one of 12; no multiplier is what it would be by default.
TINY = TINY_LLAMA | {
    "architectures": ["GraniteMoeHybridForCausalLM"],
    "model_type": "granitemoehybrid",
    "vocab_size": 113,
    "hidden_size": 40,
    "intermediate_size": 28,
    "shared_intermediate_size": 36,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "position_embedding_type": "nope",
    "rope_theta": 10000.0,
    "layer_types": ["mamba", "attention", "mamba"],
    "embedding_multiplier": 5.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
    "logits_scaling": 3.0,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "mamba_n_heads": 4,
    "mamba_d_head": 20,
    "mamba_n_groups": 1,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "bos_token_id": 1,
}

#: What layer_types calls a layer -> whether it keeps a state.
_KINDS = {"mamba": True, "linear_attention": True, "attention": False, "full_attention": False}


def _blocks(fields: Fields) -> BlockSettings:
    positions = fields.one_of("position_embedding_type", ("rope", "nope"), "nope")
    width = fields.integer("shared_intermediate_size", 1, MAX_WIDTH, default=1024)
    fields.raw("intermediate_size")  # of experts, where there are any
    return BlockSettings(ffn_width=width, has_rotation=positions == "rope")


def _mamba(fields: Fields) -> MambaSettings | None:
    kinds = fields.texts("layer_types")
    for kind in kinds:
        if kind not in _KINDS:
            fields.unsupported("layer_types", kind, f"supported: {', '.join(_KINDS)}")
    layers = fields.integer("num_hidden_layers", 1, 2**12)
    if kinds and len(kinds) != layers:
        fields.fail("layer_types", list(kinds), f"has {len(kinds)} entries for num_hidden_layers={layers}")
    found = tuple(_KINDS[kind] for kind in kinds) or (True,) * layers
    return parse_mamba(fields, MAMBA_KEYS, found, MAMBA_DEFAULTS, expand="mamba_expand")


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", *MULTIPLIERS}),
    experts="granite_hybrid",
    blocks=_blocks,
    mamba=_mamba,
    defaults={"attention_multiplier": 1.0},
    built_in={"normalization_function": "rmsnorm"},
    ignorable=keys("mamba_chunk_size init_method"),
)
_NAMES = Names("block_sparse_moe", "gate_proj", "up_proj", "down_proj", router="router.layer")
_SHARED = FFNNames("shared_mlp", down="output_linear")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    ffn = partial(ffn_block, width=config.intermediate_size)
    return decoder(config, max_model_len, ffn=ffn, state=mamba_block)


def ffn_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, width: int, names: Names = _NAMES) -> Value:
    """x + what a token's experts make of norm(x), where there are any, + what an FFN of so many channels does; 0: there
    is none."""
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.{'mlp' if c.experts is None else 'moe'}"):
        h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
        if c.experts is not None:
            ids, weights = route(b, c, h, f"{name}.{names.block}", names)
            pairs = experts(b, c, h, ids, f"{name}.{names.block}.experts", names)
            with b.part("combine"):
                x = b.add(x, b.combine(pairs, weights))
        if width == 0:
            return x
        with b.part("shared"):
            y = gated_mlp(b, c, h, f"{name}.{_SHARED.block}", width, joined="input_linear", names=_SHARED)
            return b.add(x, y)
