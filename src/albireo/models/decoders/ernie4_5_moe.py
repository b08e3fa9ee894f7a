"""ERNIE 4.5 with experts (21B-A3B, 300B-A47B): the dense one's attention; experts chosen by a softmax and a bias,
beside a shared one. And the text part of ERNIE 4.5 VL, whose tokens of pictures have experts of their own: all are
computed of every row, and what is not a token's is multiplied by zero.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.experts import DEEPSEEK, experts, moe_block, route
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.layers import attention_block, embedding, head, norm
from albireo.models.blocks.rope import rope_spec
from albireo.models.checkpoint.experts_of_pictures import OF_PICTURES, OF_TEXT
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

#: Eight experts of 28 channels, three a token; of four layers the middle ones have them.
TINY = TINY_LLAMA | {
    "architectures": ["Ernie4_5_MoeForCausalLM"],
    "model_type": "ernie4_5_moe",
    "vocab_size": 125,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-5,
    "use_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
    "moe_num_experts": 8,
    "moe_k": 3,
    "moe_intermediate_size": 28,
    "moe_num_shared_experts": 2,
    "moe_layer_start_index": 1,
    "moe_layer_end_index": 2,
    "moe_layer_interval": 1,
    "moe_norm_min": 1e-12,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    experts="ernie",
    defaults={"num_key_value_heads": 4, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
    has_pairs_side_by_side=True,
    class_names=("Ernie4_5_MoeForCausalLM",),
    built_in={"moe_norm_min": 1e-12, "moe_use_aux_free": True, "moe_gate": "topk"},
    ignorable=frozenset({"num_nextn_predict_layers", "multi_token_pred_lambda", "moe_capacity"}),
)
_NAMES = replace(DEEPSEEK, bias="moe_statics.e_score_correction_bias")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    assert config.experts is not None
    has_others = bool(config.experts.picture_width)
    kinds = _kinds(b, config) if has_others else ()
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope)
        is_of_two = has_others and config.experts.layers[layer]
        x = _of_two_kinds(b, config, x, layer, kinds) if is_of_two else moe_block(b, config, x, layer, _NAMES)
    return head(b, config, x)


def _kinds(b: GraphBuilder, c: ModelConfig) -> tuple[Value, ...]:
    """[T, experts of a token] each: ones where a token is of text; and where it is of a picture."""
    assert c.experts is not None
    dims = c.vocab_size, c.experts.top_k
    with b.part("kinds"):
        tables = (b.weight(name, dims, "float32") for name in (OF_TEXT, OF_PICTURES))
        return tuple(b.embed(b.token_ids, table, never_given=True) for table in tables)


def _of_two_kinds(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, kinds: tuple[Value, ...]) -> Value:
    """x + the weighed sum of what experts of a token's kind make of norm(x), and the shared one."""
    settings, name = c.experts, f"model.layers.{layer}.{_NAMES.block}"
    assert settings is not None
    with b.part(f"layers.{layer}.moe"):
        h = norm(b, c, x, f"model.layers.{layer}.{_NAMES.norm}.weight", "norm")
        for kind, block, width in zip(
            kinds, (name, f"{name}.pictures"), (settings.width, settings.picture_width), strict=True
        ):
            own = replace(c, experts=replace(settings, width=width))
            with b.part("text" if block == name else "pictures"):
                # GPUs keep the choice that is made last before experts
                ids, weights = route(b, own, h, block, _NAMES)
                pairs = experts(b, own, h, ids, f"{block}.experts", _NAMES)
                with b.part("combine"):
                    x = b.add(x, b.combine(pairs, b.mul(weights, kind)))
        if not settings.shared_width:
            return x
        with b.part("shared"):
            return b.add(x, gated_mlp(b, c, h, f"{name}.{_NAMES.shared}", settings.shared_width))
