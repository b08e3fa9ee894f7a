"""ModernBERT: norms of what is read, rotations, a gate in the FFN, and in two of three layers a window of both sides.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.block_settings import BlockSettings
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.head_rows import RowsOf
from albireo.models.layers import attention, linear, pooled_states, windows
from albireo.models.layers import norm as rounded_norm
from albireo.models.pooling_rule import HeadStep, PoolingRule, classifier
from albireo.models.rope import rope_spec

TINY = {
    "architectures": ["ModernBertModel"],
    "model_type": "modernbert",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "max_position_embeddings": 128,
    "hidden_activation": "gelu",
    "norm_eps": 1e-5,
    "global_attn_every_n_layers": 3,
    "local_attention": 24,
    "global_rope_theta": 160000.0,
    "local_rope_theta": 10000.0,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "torch_dtype": "float32",
}
IGNORABLE_WEIGHTS = ("head.*", "decoder.*", "classifier.*")


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(
        is_layer_norm=True,
        has_norm_bias=fields.flag("norm_bias", False),
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=fields.flag("mlp_bias", False),
        sees_both_ways=True,
    )


def _pooled(fields: Fields, name: str) -> PoolingRule:
    kind, act = fields.text("classifier_pooling", "cls"), fields.text("classifier_activation", "gelu")
    eps = fields.number("norm_eps", 1e-30, 1.0, default=1e-5)
    if name != "ModernBertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    if kind not in ("cls", "mean"):
        fields.fail("classifier_pooling", kind, "must be cls or mean")
    if act != "gelu":
        fields.unsupported("classifier_activation", act, "supported: gelu")
    steps = (HeadStep("head.dense", "gelu"), HeadStep("head.norm", eps=eps), HeadStep("classifier"))
    return classifier(fields, "cls" if kind == "cls" else "mean", steps)


CONFIG = ConfigRules(
    names={"rms_norm_eps": "norm_eps", "rope_theta": "global_rope_theta", "rope_local_base_freq": "local_rope_theta"},
    blocks=_blocks,
    pooled=_pooled,
    windows="both_sides",
    has_local_rope=True,
    activation="exact_gate",
    defaults={
        "vocab_size": 50368,
        "hidden_size": 768,
        "intermediate_size": 1152,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "max_position_embeddings": 8192,
        "norm_eps": 1e-5,
        "global_rope_theta": 160000.0,
    },
    ignorable=keys(
        "initializer_cutoff_factor embedding_dropout mlp_dropout classifier_dropout classifier_bias decoder_bias",
        "deterministic_flash_attn sparse_prediction sparse_pred_ignore_index reference_compile repad_logits_with_grad",
        "layer_norm_eps position_embedding_type",
    ),
    class_names=("ModernBertModel", "ModernBertForSequenceClassification", "ModernBertForMaskedLM"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that embeds texts of up to max_model_len tokens."""
    b, c = GraphBuilder(), config
    ropes = {is_local: rope_spec(c, max_model_len, is_local=is_local) for is_local in (False, True)}
    with b.part("embed"):
        table = b.weight("embeddings.tok_embeddings.weight", (c.vocab_size, c.hidden_size), c.dtype)
        x = _norm(b, c, b.embed(b.token_ids, table), "embeddings.norm")
    for layer, window in enumerate(windows(c, max_model_len)):
        name, width = f"layers.{layer}", c.num_heads * c.head_dim
        with b.part(f"{name}.attn"):
            h = rounded_norm(b, c, x, f"{name}.attn_norm.weight", "norm") if layer else b.cast(x, c.dtype)
            parts = {}
            for i, p in enumerate("qkv"):
                rows = RowsOf(f"{name}.attn.Wqkv", ((i * width, (i + 1) * width),))
                parts[p] = linear(b, c, h, f"{name}.attn.{p}", width, p, c.blocks.qkv_bias, "heads", rows)
            a = attention(b, c, parts, layer, ropes[c.windows[layer] is not None], window)
            o = linear(b, c, a, f"{name}.attn.Wo", c.hidden_size, "o", c.blocks.o_bias, "row")
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"{name}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.mlp_norm.weight", "norm")
            x = _gated(b, c, x, h, f"{name}.mlp")
    with b.part("head"):
        x = _norm(b, c, x, "final_norm")
    return pooled_states(b, x)


def _gated(b: GraphBuilder, c: ModelConfig, x: Value, h: Value, name: str) -> Value:
    width, bias = c.intermediate_size, c.blocks.ffn_bias
    gate, up = (
        linear(b, c, h, f"{name}.{p}", width, p, bias, "ffn", RowsOf(f"{name}.Wi", ((i * width, (i + 1) * width),)))
        for i, p in enumerate(("gate", "up"))
    )
    with b.part("act"):
        m = b.cast(b.mul(b.unary(gate, c.hidden_act), up), c.dtype)
    down = linear(b, c, m, f"{name}.Wo", c.hidden_size, "down", bias, "row")
    with b.part("down"):
        return b.add(x, down)


def _norm(b: GraphBuilder, c: ModelConfig, x: Value, name: str) -> Value:
    """LayerNorm, float32."""
    weight = b.weight(f"{name}.weight", (c.hidden_size,), "float32")
    bias = b.weight(f"{name}.bias", (c.hidden_size,), "float32") if c.blocks.has_norm_bias else None
    return b.layer_norm(x, weight, bias, c.rms_norm_eps)
