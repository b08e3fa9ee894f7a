"""Kolibri: norms around attention and experts, windows in four of five layers, which alone rotate; experts chosen by
their logits and a bias, weighed by sigmoids, beside a shared one.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.experts import Names, normed_moe_block
from albireo.models.blocks.layers import Norms, attention_block, embedding, head, windows
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and without rotation.
TINY = TINY_LLAMA | {
    "architectures": ["Kolibri1ForCausalLM"],
    "model_type": "kolibri1",
    "vocab_size": 119,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 9,
    "layer_types": ["sliding_attention", "full_attention"],
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "norm_topk_prob": True,
    "output_router_logits": False,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """No layer has an ordinary FFN: its width is that of an expert."""
    if fields.has("sliding_window") and fields.raw("sliding_window") is None:
        fields.unsupported("sliding_window", None, "a number: layers without a window do not rotate")
    return BlockSettings(ffn_width=fields.integer("moe_intermediate_size", 1, MAX_WIDTH, default=512))


CONFIG = ConfigRules(
    windows="periodic",
    period=5,
    default_window=513,
    experts="kolibri",
    head_dim=128,
    blocks=_blocks,
    defaults={
        "num_key_value_heads": 4,
        "max_position_embeddings": 262144,
        "num_experts_per_tok": 6,
    },
)
_ATTENTION, _FFN = Norms("input_layernorm", "post_attn_norm"), Norms("post_attention_layernorm", "post_ffn_norm")
_EXPERTS = Names(bias="expert_bias", bias_block="moe.router", shared="shared_experts")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    turning, still = rope_spec(c, max_model_len), no_rotation(c)
    x = embedding(b, c)
    for layer, window in enumerate(windows(c, max_model_len)):
        rope = still if c.windows[layer] is None else turning
        x = attention_block(b, c, x, layer, rope, window=window, qk_norm=True, norms=_ATTENTION)
        x = normed_moe_block(b, c, x, layer, _EXPERTS, _FFN)
    return head(b, c, x)
