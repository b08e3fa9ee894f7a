"""Moonshine: a decoder whose layers rotate, and see the text so far and all of a sound, which is as long as it is.

The encoder is a tower (models/hearing/moonshine.py). As of Whisper (see there) the first positions of a sequence are a
sound's: as many as of the longest, of which a step says how many there are. Source: Jeffries et al. 2024, Moonshine:
Speech Recognition for Live Transcription and Voice Commands.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import Ends, embedding, head, linear, norm, queries_keys_values
from albireo.models.blocks.rope import rope_spec
from albireo.models.blocks.speech_layers import heard_sound, left_by_sound, seen_text
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["MoonshineForConditionalGeneration"],
    "model_type": "moonshine",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "encoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 4,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "max_position_embeddings": 64,
    "partial_rotary_factor": 0.9,
    "is_encoder_decoder": True,
    "decoder_start_token_id": 1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

#: Samples a second; and seconds of the longest sound, which files do not say: of what the model was trained with.
RATE, SECONDS = 16000, 30
#: Of the convolutions, one behind the other: samples or rows that each sees, and goes on by.
KERNELS, STRIDES = (127, 7, 3), (64, 3, 2)
#: Samples of which the convolutions make one row.
FEWEST = 127 + 64 * (7 + 3 * 2 - 1)
#: Cross attention's keys and values: of the program that listens, not of the decoder's.
IGNORABLE_WEIGHTS = ("model.decoder.layers.*.encoder_attn.k_proj.*", "model.decoder.layers.*.encoder_attn.v_proj.*")
_LAYERS = "model.decoder.layers"
_ENDS = Ends("model.decoder.embed_tokens.weight", "model.decoder.norm")


def num_rows(samples: int, times: int = len(KERNELS)) -> int:
    """What so many samples are behind the first convolutions; fewer than one: nothing."""
    for kernel, stride in zip(KERNELS[:times], STRIDES[:times], strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def _blocks(fields: Fields) -> BlockSettings:
    heads = fields.integer("num_attention_heads", 1, 2**10, 8)
    if fields.integer("num_key_value_heads", 1, 2**10, heads) != heads:
        fields.unsupported("num_key_value_heads", fields.raw("num_key_value_heads"), f"supported: {heads}, as queries")
    return BlockSettings(
        is_layer_norm=True, has_norm_bias=False, ffn_bias=True, sound_positions=num_rows(RATE * SECONDS)
    )


CONFIG = ConfigRules(
    keys=frozenset({"partial_rotary_factor"}),
    names={
        "num_hidden_layers": "decoder_num_hidden_layers",
        "num_attention_heads": "decoder_num_attention_heads",
        "num_key_value_heads": "decoder_num_key_value_heads",
        "hidden_act": "decoder_hidden_act",
    },
    blocks=_blocks,
    has_pairs_side_by_side=True,
    built_in={"is_encoder_decoder": True},
    defaults={
        "vocab_size": 32768,
        "hidden_size": 288,
        "intermediate_size": 1152,
        "decoder_num_hidden_layers": 6,
        "decoder_num_attention_heads": 8,
        "decoder_hidden_act": "silu",
        "max_position_embeddings": 512,
        "partial_rotary_factor": 0.9,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    # the encoder's are read with the tower; how heads are laid out elsewhere is not how they are here
    ignorable=keys(
        "encoder_num_hidden_layers encoder_num_attention_heads encoder_num_key_value_heads encoder_hidden_act",
        "pad_head_dim_to_multiple_of",
    ),
    class_names=("MoonshineForConditionalGeneration",),
)


def build(c: ModelConfig, max_model_len: int) -> Graph:
    """The decoder: tokens at positions S and behind. Every position is below max_model_len."""
    b = GraphBuilder()
    rope, x = rope_spec(c, max_model_len), embedding(b, c, _ENDS)
    for layer in range(c.num_layers):
        name = f"{_LAYERS}.{layer}"
        with b.part(f"layers.{layer}.attn"):
            h, of = norm(b, c, x, f"{name}.input_layernorm.weight", "norm"), f"{name}.self_attn"
            parts = queries_keys_values(b, c, h, of, bias=False)
            with b.part("rope"):
                q, k = (b.rope(parts[p], rope, c.num_heads, c.head_dim) for p in "qk")
            with b.part("kv"):
                b.kv_write(k, parts["v"], layer, c.num_heads, c.head_dim)
            x = seen_text(b, c, x, q, layer, f"{of}.o_proj", has_bias=False)
        with b.part(f"layers.{layer}.cross"):
            h, of = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm"), f"{name}.encoder_attn"
            q = linear(b, c, h, f"{of}.q_proj", c.hidden_size, "q", False, "heads")
            x = heard_sound(b, c, x, q, layer, f"{of}.o_proj", has_bias=False)
        with b.part(f"layers.{layer}.mlp"):
            x = _mlp(b, c, x, name)
    return head(b, c, x, _ENDS)


def listening(c: ModelConfig) -> Graph:
    """See left_by_sound()."""
    return left_by_sound(c, lambda layer, part: f"{_LAYERS}.{layer}.encoder_attn.{part}_proj", biases="")


def _mlp(b: GraphBuilder, c: ModelConfig, x: Value, name: str) -> Value:
    """One linear has the rows of what is multiplied, then those of its gate."""
    h, width = norm(b, c, x, f"{name}.final_layernorm.weight", "norm"), c.intermediate_size
    of = f"{name}.mlp"
    up, gate = (
        linear(b, c, h, f"{of}.{p}", width, p, True, "ffn", RowsOf(f"{of}.fc1", ((at * width, (at + 1) * width),)))
        for at, p in enumerate(("up", "gate"))
    )
    with b.part("act"):
        m = b.cast(b.mul(b.unary(gate, c.hidden_act), up), c.dtype)
    down = linear(b, c, m, f"{of}.fc2", c.hidden_size, "down", True, "row")
    with b.part("down"):
        return b.add(x, down)
