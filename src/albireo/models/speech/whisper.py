"""Whisper, Distil-Whisper: a decoder whose layers see the text so far, and the whole of a sound.

The encoder is a tower (models/hearing/whisper.py). Positions 0 .. S-1 of a sequence are the sound's: what stands there
in a KV layer are keys and values of cross attention, which the graph of listening() writes; behind them stand those of
self attention. So a sound takes no cache of another kind, and a layer no second one. Source: Radford et al. 2022,
Robust Speech Recognition via Large-Scale Weak Supervision.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import plain_mlp
from albireo.models.blocks.layers import Ends, embedding, head, linear, norm
from albireo.models.blocks.rope import no_rotation
from albireo.models.blocks.speech_layers import heard_sound, left_by_sound, seen_text
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["WhisperForConditionalGeneration"],
    "model_type": "whisper",
    "vocab_size": 131,
    "num_mel_bins": 8,
    "d_model": 48,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 96,
    "max_source_positions": 50,
    "max_target_positions": 64,
    "activation_function": "gelu",
    "is_encoder_decoder": True,
    "decoder_start_token_id": 3,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "torch_dtype": "float32",
}

#: Far more than any encoder gives of a sound.
MAX_SOUND_POSITIONS = 2**16
#: Cross attention's keys and values: of the program that listens, not of the decoder's.
IGNORABLE_WEIGHTS = ("model.decoder.layers.*.encoder_attn.k_proj.*", "model.decoder.layers.*.encoder_attn.v_proj.*")
_LAYERS = "model.decoder.layers"
_ENDS = Ends("model.decoder.embed_tokens.weight", "model.decoder.layer_norm")
_POSITIONS = "model.decoder.embed_positions.weight"


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        sound_positions=fields.integer("max_source_positions", 1, MAX_SOUND_POSITIONS, 1500),
    )


CONFIG = ConfigRules(
    names={
        "hidden_size": "d_model",
        "intermediate_size": "decoder_ffn_dim",
        "num_hidden_layers": "decoder_layers",
        "num_attention_heads": "decoder_attention_heads",
        "hidden_act": "activation_function",
        "max_position_embeddings": "max_target_positions",
    },
    blocks=_blocks,
    has_rope=False,
    activation="plain",
    built_in={"is_encoder_decoder": True},
    defaults={
        "vocab_size": 51865,
        "d_model": 384,
        "decoder_layers": 4,
        "decoder_attention_heads": 6,
        "decoder_ffn_dim": 1536,
        "max_target_positions": 448,
        "activation_function": "gelu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    # the encoder's are read with the tower; the rest is of training, of other heads, and of how texts are begun
    ignorable=keys(
        "num_mel_bins encoder_layers encoder_attention_heads encoder_ffn_dim encoder_layerdrop num_hidden_layers",
        "dropout activation_dropout decoder_layerdrop init_std apply_spec_augment classifier_proj_size",
        "mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob mask_feature_length",
        "mask_feature_min_masks median_filter_width forced_decoder_ids",
    ),
    class_names=("WhisperForConditionalGeneration",),
)


def build(c: ModelConfig, max_model_len: int) -> Graph:
    """The decoder: tokens at positions S and behind. Every position is below max_model_len."""
    b = GraphBuilder()
    x = _with_positions(b, c, embedding(b, c, _ENDS))
    for layer in range(c.num_layers):
        name = f"{_LAYERS}.{layer}"
        with b.part(f"layers.{layer}.attn"):
            x = _self_attention(b, c, x, layer, name)
        with b.part(f"layers.{layer}.cross"):
            x = _cross_attention(b, c, x, layer, name)
        with b.part(f"layers.{layer}.mlp"):
            h = norm(b, c, x, f"{name}.final_layer_norm.weight", "norm")
            down = plain_mlp(b, c, h, name, c.intermediate_size, bias=True, up="fc1", down="fc2")
            with b.part("down"):
                x = b.add(x, down)
    return head(b, c, x, _ENDS)


def listening(c: ModelConfig) -> Graph:
    """See left_by_sound()."""
    return left_by_sound(c, lambda layer, part: f"{_LAYERS}.{layer}.encoder_attn.{part}_proj", biases="v")


def _with_positions(b: GraphBuilder, c: ModelConfig, x: Value) -> Value:
    """The table begins with the first position of text, before which are zeros in place of the sound's."""
    first, count = c.blocks.sound_positions, c.max_position_embeddings
    segments = (RowSegment(None, 0, first), RowSegment(_POSITIONS, 0, count - first))
    with b.part("positions"):
        table = b.weight(_POSITIONS, (count, c.hidden_size), c.dtype, segments=segments)
        return b.add(x, b.embed(b.positions, table))


def _self_attention(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, name: str) -> Value:
    h, of = norm(b, c, x, f"{name}.self_attn_layer_norm.weight", "norm"), f"{name}.self_attn"
    q = linear(b, c, h, f"{of}.q_proj", c.hidden_size, "q", True, "heads")
    k = _without_bias(b, c, h, f"{of}.k_proj")
    v = linear(b, c, h, f"{of}.v_proj", c.hidden_size, "v", True, "heads")
    still = no_rotation(c)
    with b.part("rope"):
        q, k = (b.rope(each, still, c.num_heads, c.head_dim) for each in (q, k))
    with b.part("kv"):
        b.kv_write(k, v, layer, c.num_heads, c.head_dim)
    return seen_text(b, c, x, q, layer, f"{of}.out_proj")


def _cross_attention(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, name: str) -> Value:
    h, of = norm(b, c, x, f"{name}.encoder_attn_layer_norm.weight", "norm"), f"{name}.encoder_attn"
    q = linear(b, c, h, f"{of}.q_proj", c.hidden_size, "q", True, "heads")
    return heard_sound(b, c, x, q, layer, f"{of}.out_proj")


def _without_bias(b: GraphBuilder, c: ModelConfig, h: Value, name: str) -> Value:
    """Keys, with zeros for a bias, so that they are one linear with queries and values."""
    with b.part("k"):
        weight = b.weight(f"{name}.weight", (c.hidden_size, c.hidden_size), c.dtype)
        zeros = (RowSegment(None, 0, c.hidden_size),)
        return b.linear(h, weight, b.weight(f"{name}.bias", (c.hidden_size,), "float32", segments=zeros), "heads")
