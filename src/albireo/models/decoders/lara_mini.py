"""Lara 4 Mini: the gated delta rule in two layers of five, attention with a window, which alone rotates, in two others,
and to all positions in the fifth; experts and a shared one in every layer.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import moe_block
from albireo.models.blocks.gated_delta import DeltaNames, gated_delta_block
from albireo.models.blocks.layers import attention_block, embedding, head, windows
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS, layer_kinds
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LLAMA

_STATE, _SLIDING, _FULL = "linear_attention", "sliding_attention", "full_attention"
#: Values of four heads of 20 share keys of two of 12; six experts of 28 channels, two a token, and a shared one of 36.
TINY = TINY_LLAMA | {
    "architectures": ["LaraMiniForCausalLM"],
    "model_type": "lara_mini",
    "vocab_size": 135,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "layer_types": [_STATE, _SLIDING, _FULL],
    "sliding_window": 9,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 20,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "norm_topk_prob": True,
    "bos_token_id": 1,
}
_PATTERN = (_STATE, _SLIDING, _STATE, _FULL, _SLIDING)


def _kinds(fields: Fields) -> tuple[str, ...]:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    kinds = layer_kinds(fields, layers, (_STATE, _SLIDING, _FULL))
    return kinds or tuple(_PATTERN[layer % len(_PATTERN)] for layer in range(layers))


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for an impossible value."""
    window = fields.integer("sliding_window", 1, MAX_POSITIONS, default=512)
    return BlockSettings(layer_windows=tuple(window if kind == _SLIDING else None for kind in _kinds(fields)))


CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    blocks=_blocks,
    experts="lara",
    recurrent="joined",
    windows="read_elsewhere",
    rotates_windows=True,
    head_dim=128,
    defaults={
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "num_experts_per_tok": 4,
        "linear_num_key_heads": 8,
        "linear_num_value_heads": 16,
        "tie_word_embeddings": True,
    },
    # nothing has this width: every layer has experts
    ffn_factor=1,
)
_NAMES = DeltaNames("", "", "", "out_norm", "out_proj")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    turning, still = rope_spec(c, max_model_len), no_rotation(c)
    x = embedding(b, c)
    for layer, window in enumerate(windows(c, max_model_len)):
        if layer in c.cached_layers:
            rope = still if c.windows[layer] is None else turning
            x = attention_block(b, c, x, layer, rope, window=window, qk_norm=True)
        else:
            x = gated_delta_block(b, c, x, layer, _NAMES)
        x = moe_block(b, c, x, layer)
    return head(b, c, x)
