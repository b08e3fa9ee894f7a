"""T5's encoder: norms of what is read, scores that depend on distances, no positions else; sentence-t5, gtr-t5."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp, plain_mlp
from albireo.models.blocks.layers import attention, linear, norm, pooled_states, unrounded_norm
from albireo.models.blocks.rope import no_rotation
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.encoders import mpnet
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.pooling_rule import PoolingRule

TINY = {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "vocab_size": 131,
    "d_model": 48,
    "d_kv": 12,
    "d_ff": 80,
    "num_layers": 2,
    "num_heads": 6,
    "n_positions": 96,
    "feed_forward_proj": "relu",
    "layer_norm_epsilon": 1e-6,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}
#: The table a second time, as older files have it.
IGNORABLE_WEIGHTS = ("encoder.embed_tokens.weight",)
_BIAS = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
_GATED = "gelu_tanh"
_FFN = FFNNames(gate="wi_0", up="wi_1", down="wo")


def _blocks(fields: Fields) -> BlockSettings:
    wanted = {"relative_attention_num_buckets": mpnet.BUCKETS, "relative_attention_max_distance": mpnet.FARTHEST}
    for key, value in wanted.items():
        found = fields.integer(key, 1, 2**16, default=value)
        if found != value:
            fields.unsupported(key, found, f"supported: {value}")
    return BlockSettings(sees_both_ways=True)


def _pooled(fields: Fields, name: str) -> PoolingRule:
    return PoolingRule(pooling_type="mean")


CONFIG = ConfigRules(
    names={
        "hidden_size": "d_model",
        "intermediate_size": "d_ff",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "head_dim": "d_kv",
        "max_position_embeddings": "n_positions",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "feed_forward_proj",
    },
    blocks=_blocks,
    pooled=_pooled,
    has_rope=False,
    activation="t5",
    multipliers=Multipliers(attention=1.0),
    defaults={
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
        "n_positions": 512,
        "layer_norm_epsilon": 1e-6,
        "feed_forward_proj": "relu",
    },
    # of the decoder, which is not there, and of training; what feed_forward_proj says is said again
    ignorable=keys(
        "is_encoder_decoder num_decoder_layers dropout_rate initializer_factor classifier_dropout is_gated_act",
        "dense_act_fn is_decoder scale_decoder_outputs",
    ),
    class_names=("T5EncoderModel",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    with b.part("embed"):
        x = b.embed(b.token_ids, b.weight("shared.weight", (c.vocab_size, c.hidden_size), c.dtype))
    near = mpnet.distances(b, c, _BIAS)
    for layer in range(c.num_layers):
        x = _layer(b, c, x, layer, near)
    with b.part("head"):
        x = unrounded_norm(b, c, x, "encoder.final_layer_norm.weight")
    return pooled_states(b, x)


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, near: Value) -> Value:
    name, width = f"encoder.block.{layer}.layer", c.num_heads * c.head_dim
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.0.layer_norm.weight", "norm")
        parts = {p: linear(b, c, h, f"{name}.0.SelfAttention.{p}", width, p, False, "heads") for p in "qkv"}
        a = attention(b, c, parts, layer, no_rotation(c), None, distances=near)
        o = linear(b, c, a, f"{name}.0.SelfAttention.o", c.hidden_size, "o", False, "row")
        with b.part("o"):
            x = b.add(x, o)
    with b.part(f"layers.{layer}.mlp"):
        h, inner = norm(b, c, x, f"{name}.1.layer_norm.weight", "norm"), f"{name}.1.DenseReluDense"
        if c.hidden_act == _GATED:
            down = gated_mlp(b, c, h, inner, c.intermediate_size, names=_FFN)
        else:
            down = plain_mlp(b, c, h, inner, c.intermediate_size, up="wi", down="wo")
        with b.part("down"):
            return b.add(x, down)
