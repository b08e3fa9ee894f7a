"""Gemma 3n (E2B, E4B), text: four residual streams, of which each layer computes one and guesses the others; a linear
of few channels beside attention; FFNs of which the largest gates alone count; an embedding of each layer, and last
layers that read the keys and values of earlier ones.
"""

from __future__ import annotations

from statistics import NormalDist

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import AROUND_FFN, mlp_block
from albireo.models.blocks.layer_inputs import given_to_layers, made_of_given
from albireo.models.blocks.layers import (
    AROUND_ATTENTION,
    attention_block,
    embedding,
    head,
    linear,
    norm,
    unrounded_norm,
    windows,
)
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings, Streams
from albireo.models.settings.layer_kinds import MAX_LAYERS, parse_sharing
from albireo.models.settings.multipliers import Multipliers
from albireo.speculative_config import MAX_VOCAB

#: Three streams; the first two of five layers cut their gates, the last two read the caches of the second and third.
TINY = {
    "architectures": ["Gemma3nForCausalLM"],
    "model_type": "gemma3n_text",
    "vocab_size": 139,
    "vocab_size_per_layer_input": 131,
    "hidden_size": 48,
    "hidden_size_per_layer_input": 12,
    "intermediate_size": [72, 72, 72, 72, 72],
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "layer_types": [*["sliding_attention"] * 2, *["full_attention", "sliding_attention", "full_attention"]],
    "num_kv_shared_layers": 2,
    "sliding_window": 21,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": None,
    "final_logit_softcapping": 2.5,
    "activation_sparsity_pattern": [0.7, 0.4, 0.0, 0.0, 0.0],
    "altup_num_inputs": 3,
    "altup_active_idx": 0,
    "altup_coef_clip": 120.0,
    "altup_correct_scale": True,
    "laurel_rank": 8,
    "query_pre_attn_scalar": 16,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "torch_dtype": "float32",
}
#: Layers from one without a window to the next, where layer_types does not say.
_PERIOD = 5
_SLIDING = "sliding_attention"
#: Of models of more layers so many first ones have a cut of so much, where it is not said.
_CUT_LAYERS, _SPARSITY = 10, 0.95
_MAX_STREAMS = 8
#: Tokens without an embedding of each layer, which stand for images and sounds.
_MAX_WITHOUT = 4096
#: Under the mean square that a new stream is divided by.
_LEAST = 1e-5


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a bad value; UnsupportedModel."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    kinds = fields.texts("layer_types")
    kinds = kinds or tuple(_SLIDING if (i + 1) % _PERIOD else "full_attention" for i in range(layers))
    active = fields.integer("altup_active_idx", 0, _MAX_STREAMS, default=0)
    if active:
        fields.unsupported("altup_active_idx", active, "the first stream must be what layers compute: 0")
    vocab = fields.integer("vocab_size", 1, MAX_VOCAB)
    entries = min(vocab, fields.integer("vocab_size_per_layer_input", 1, MAX_VOCAB, default=262144))
    if vocab - entries > _MAX_WITHOUT:
        fields.unsupported("vocab_size_per_layer_input", entries, f"at most {_MAX_WITHOUT} tokens may have none")
    return BlockSettings(
        ffn_width=_ffn_width(fields, layers),
        layer_width=fields.integer("hidden_size_per_layer_input", 1, MAX_WIDTH, default=256),
        layer_entries=entries,
        num_sharing=parse_sharing(fields, kinds, default=15),
        streams=Streams(
            fields.integer("altup_num_inputs", 2, _MAX_STREAMS, default=4),
            fields.integer("laurel_rank", 1, MAX_WIDTH, default=64),
            _cuts(fields, layers),
        ),
    )


def _ffn_width(fields: Fields, layers: int) -> int:
    """A number, or one for each layer, all alike."""
    given = fields.raw("intermediate_size")
    if not isinstance(given, list):
        return fields.integer("intermediate_size", 1, MAX_WIDTH, default=16384)
    if len(given) != layers or not all(type(n) is int and 1 <= n <= MAX_WIDTH for n in given):
        fields.fail("intermediate_size", given, f"must be a whole number, or one for each of {layers} layers")
    if len(set(given)) > 1:
        fields.unsupported("intermediate_size", given, "FFNs of all layers must have one width")
    return int(given[0])


def _cuts(fields: Fields, layers: int) -> tuple[float | None, ...]:
    """Of each layer: a gate of the normal distribution is above it with the probability that is said."""
    given = fields.raw("activation_sparsity_pattern")
    found = [_SPARSITY if layers > _CUT_LAYERS and i < _CUT_LAYERS else 0.0 for i in range(layers)]
    if given is not None:
        found = list(fields.numbers("activation_sparsity_pattern", 0.0, 0.9999))
    if len(found) != layers:
        fields.fail("activation_sparsity_pattern", given, f"must have a number for each of {layers} layers")
    return tuple(NormalDist().inv_cdf(sparsity) if sparsity else None for sparsity in found)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "final_logit_softcapping"}),
    windows="periodic",
    period=_PERIOD,
    default_window=512,
    head_dim=256,
    defaults={
        "vocab_size": 262400,
        "hidden_size": 2048,
        "num_hidden_layers": 35,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "final_logit_softcapping": 30.0,
        "rope_theta": 1000000.0,
    },
    activation="gelu_said",
    multipliers=Multipliers(embedding=None, attention=1.0),
    has_local_rope=True,
    blocks=_blocks,
    built_in={"altup_correct_scale": True},
    # of training; scores are not scaled
    ignorable=keys("altup_coef_clip altup_lr_multiplier query_pre_attn_scalar"),
    class_names=("Gemma3nForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    ropes = {is_local: rope_spec(config, max_model_len, is_local=is_local) for is_local in (False, True)}
    x = embedding(b, config)
    given = given_to_layers(b, config, x)
    streams = _begun(b, config, x)
    for layer, window in enumerate(windows(config, max_model_len)):
        with b.part(f"layers.{layer}.predict"):
            guessed, x = _predicted(b, config, streams, layer)
        rope = ropes[config.windows[layer] is not None]
        made = _ffn(b, config, _mixed(b, config, x, layer, rope=rope, window=window), layer)
        with b.part(f"layers.{layer}.correct"):
            streams, x = _corrected(b, config, guessed, x, made, layer)
        with b.part(f"layers.{layer}.given"):
            streams = b.add_parts(streams, made_of_given(b, config, x, given[layer], layer), _count(config), None, 1, 1)
    return head(b, config, _joined(b, config, streams))


def _mixed(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, **options: object) -> Value:
    """(x + norm(attention(h)) + h + norm(right(left(h)))) / sqrt(2) with h = norm(x)."""
    settings, name = _streams(c), f"model.layers.{layer}"
    a = attention_block(
        b,
        c,
        x,
        layer,
        qk_norm=True,
        v_norm=True,
        linears="q" if c.shares(layer) else "qkv",
        norms=AROUND_ATTENTION,
        **options,  # type: ignore[arg-type]
    )
    with b.part(f"layers.{layer}.laurel"):
        with b.part("norm"):
            h = unrounded_norm(b, c, x, f"{name}.input_layernorm.weight")
            rounded = b.cast(h, c.dtype)
        left = linear(b, c, rounded, f"{name}.laurel.linear_left", settings.rank, "left", False, None)
        with b.part("left"):
            left = b.cast(left, c.dtype)
        right = linear(b, c, left, f"{name}.laurel.linear_right", c.hidden_size, "right", False, None)
        with b.part("behind"):
            right = unrounded_norm(b, c, right, f"{name}.laurel.post_laurel_norm.weight")
        with b.part("sum"):
            return b.scale(b.add(a, b.add(h, right)), 2**-0.5)


def _ffn(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    return mlp_block(b, c, x, layer, norms=AROUND_FFN, cut=_streams(c).cuts[layer])


def _streams(c: ModelConfig) -> Streams:
    settings = c.blocks.streams
    assert settings is not None, "the architecture's rules read its keys"
    return settings


def _count(c: ModelConfig) -> int:
    return _streams(c).count


def _begun(b: GraphBuilder, c: ModelConfig, x: Value) -> Value:
    """[T, streams * E]: x, and linears of it that are as long as x."""
    streams = x
    with b.part("streams"):
        rounded = b.cast(x, c.dtype)
        for i in range(_count(c) - 1):
            y = linear(b, c, rounded, f"model.altup_projections.{i}", c.hidden_size, "begin", False, None)
            streams = b.join_heads(streams, b.match_length(y, x, _LEAST), 1)
    return streams


def _joined(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    """[T, E]: the mean of the first stream, and of linears of the others that are as long as it."""
    with b.part("joined"):
        first, *others = b.split(streams, (c.hidden_size,) * _count(c))
        total = first
        for i, other in enumerate(others):
            name = f"model.altup_unembed_projections.{i}"
            y = linear(b, c, b.cast(other, c.dtype), name, c.hidden_size, "end", False, None)
            total = b.add(total, b.match_length(y, first, _LEAST))
        return b.scale(total, 1 / _count(c))


def _first(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    return b.split(streams, (c.hidden_size, (_count(c) - 1) * c.hidden_size))[0]


def _coefficients(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, of: str, rows: int) -> Value:
    """[T, rows]: a linear of tanh(a linear of norm(x)) of one number for each stream."""
    name = f"model.layers.{layer}.altup"
    h = norm(b, c, x, f"{name}.router_norm.weight", "norm", 1 / c.hidden_size)
    routed = linear(b, c, h, f"{name}.modality_router", _count(c), "router", False, "router")
    with b.part("router"):
        routed = b.cast(b.unary(routed, "tanh"), c.dtype)
    return linear(b, c, routed, f"{name}.{of}", rows, "coefs", False, "router")


def _predicted(b: GraphBuilder, c: ModelConfig, streams: Value, layer: int) -> tuple[Value, Value]:
    """Every stream + a sum of all of them, whose coefficients the first one says; and the first one of these."""
    count = _count(c)
    coefs = _coefficients(b, c, _first(b, c, streams), layer, "prediction_coefs", count**2)
    guessed = b.add_parts(streams, streams, count, coefs, 0.0)
    return guessed, _first(b, c, guessed)


def _corrected(
    b: GraphBuilder, c: ModelConfig, guessed: Value, x: Value, made: Value, layer: int
) -> tuple[Value, Value]:
    """Every guess + a part of how far x, the first of them, was from what the layer made of it; and what the other
    streams are told of the first.
    """
    coefs = _coefficients(b, c, made, layer, "correction_coefs", _count(c))
    streams = b.add_parts(guessed, b.add(made, b.scale(x, -1.0)), _count(c), coefs, 1.0)
    first = _first(b, c, streams)
    weight = b.weight(f"model.layers.{layer}.altup.correct_output_scale", (c.hidden_size,), "float32")
    return streams, b.gain(first, weight)
