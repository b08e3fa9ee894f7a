"""Flint: Qwen 3 with experts chosen by sigmoids beside a shared one, a sink of each head, and windows in some layers,
which alone rotate.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.experts import moe_block
from albireo.models.blocks.layers import AttentionNames, attention_block, embedding, head, windows
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense; the second has a window, and rotates.
TINY = TINY_LLAMA | {
    "architectures": ["FlintForCausalLM"],
    "model_type": "flint",
    "vocab_size": 127,
    "intermediate_size": 68,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "sliding_window": 9,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "decoder_sparse_step": 1,
    "mlp_only_layers": [0],
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "norm_topk_prob": True,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0005,
    "bos_token_id": 1,
}


def _windows(_: Fields, layers: int) -> tuple[bool, ...]:
    """In all but the first two layers, each fourth and the last."""
    return tuple(not (i < 2 or i % 4 == 1 or i == layers - 1) for i in range(layers))


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows=_windows,
    default_window=513,
    experts="flint",
    head_dim=128,
    defaults={
        "num_key_value_heads": 4,
        "max_position_embeddings": 262144,
        "num_experts_per_tok": 6,
    },
)
_ATTENTION = AttentionNames(sinks="softmax_offset")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    turning, still = rope_spec(c, max_model_len), no_rotation(c)
    x = embedding(b, c)
    for layer, window in enumerate(windows(c, max_model_len)):
        x = attention_block(
            b,
            c,
            x,
            layer,
            still if c.windows[layer] is None else turning,
            window=window,
            qk_norm=True,
            sinks=True,
            names=_ATTENTION,
        )
        x = moe_block(b, c, x, layer)
    return head(b, c, x)
