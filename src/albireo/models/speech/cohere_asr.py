"""Cohere Transcribe: a decoder whose layers see the text so far, and all of a sound, which is as long as it is.

The encoder is a tower (models/hearing/cohere_asr.py). As of Moonshine, the first positions of a sequence are a sound's,
as many as of the longest. Tensors have NeMo's names. Source: Cohere 2026, Cohere Transcribe.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import plain_mlp
from albireo.models.blocks.layers import Ends, embedding, head, linear, norm, unrounded_norm
from albireo.models.blocks.rope import no_rotation
from albireo.models.blocks.speech_layers import heard_sound, left_by_sound, seen_text
from albireo.models.checkpoint.text_tensors import NEMO_POSITIONS
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["CohereAsrForConditionalGeneration"],
    "model_type": "cohere_asr",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "encoder_config": {
        "model_type": "parakeet_encoder",
        "hidden_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 80,
        "subsampling_conv_channels": 6,
        "num_mel_bins": 16,
    },
    "is_encoder_decoder": True,
    "bos_token_id": 4,
    "eos_token_id": 3,
    "torch_dtype": "float32",
}

#: Seconds of the longest sound, and frames of it, of which eight become a position.
SECONDS, FRAMES = 35, 3500
_POSITIONS_OF_SOUND = -(-FRAMES // 8)
#: Cross attention's keys and values: of the program that listens, not of the decoder's.
IGNORABLE_WEIGHTS = tuple(
    f"transf_decoder._decoder.layers.*.second_sub_layer.{part}_net.*" for part in ("key", "value")
)
_LAYERS = "transf_decoder._decoder.layers"
_ENDS = Ends("transf_decoder._embedding.token_embedding.weight", "transf_decoder._decoder.final_layer_norm")
_POSITIONS = NEMO_POSITIONS
_NETS = {"q": "query_net", "k": "key_net", "v": "value_net"}


def blocks(fields: Fields) -> BlockSettings:
    """Of a decoder whose heads all have keys and values of their own."""
    heads = fields.integer("num_attention_heads", 1, 2**10, 8)
    if fields.integer("num_key_value_heads", 1, 2**10, heads) != heads:
        fields.unsupported("num_key_value_heads", fields.raw("num_key_value_heads"), f"supported: {heads}, as queries")
    return BlockSettings(
        is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, sound_positions=_POSITIONS_OF_SOUND
    )


CONFIG = ConfigRules(
    blocks=blocks,
    has_rope=False,
    activation="plain",
    built_in={"is_encoder_decoder": True, "attention_bias": True},
    defaults={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "vocab_size": 16384,
        "hidden_act": "relu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    },
    # the encoder's are read with the tower
    ignorable=keys("encoder_config"),
    class_names=("CohereAsrForConditionalGeneration",),
)


def build(c: ModelConfig, max_model_len: int) -> Graph:
    """The decoder: tokens at positions S and behind. Every position is below max_model_len."""
    b = GraphBuilder()
    x = embedding(b, c, _ENDS)
    with b.part("positions"):
        first, count = c.blocks.sound_positions, c.max_position_embeddings
        # the table begins with the first position of text, before which are zeros in place of the sound's
        segments = (RowSegment(None, 0, first), RowSegment(_POSITIONS, 0, count - first))
        table = b.weight(_POSITIONS, (count, c.hidden_size), c.dtype, segments=segments)
        x = unrounded_norm(b, c, b.add(x, b.embed(b.positions, table)), "transf_decoder._embedding.layer_norm.weight")
    for layer in range(c.num_layers):
        name = f"{_LAYERS}.{layer}"
        with b.part(f"layers.{layer}.attn"):
            h, of = norm(b, c, x, f"{name}.layer_norm_1.weight", "norm"), f"{name}.first_sub_layer"
            parts = {p: linear(b, c, h, f"{of}.{_NETS[p]}", c.hidden_size, p, True, "heads") for p in "qkv"}
            still = no_rotation(c)
            with b.part("rope"):
                q, k = (b.rope(parts[p], still, c.num_heads, c.head_dim) for p in "qk")
            with b.part("kv"):
                b.kv_write(k, parts["v"], layer, c.num_heads, c.head_dim)
            x = seen_text(b, c, x, q, layer, f"{of}.out_projection")
        with b.part(f"layers.{layer}.cross"):
            h, of = norm(b, c, x, f"{name}.layer_norm_2.weight", "norm"), f"{name}.second_sub_layer"
            q = linear(b, c, h, f"{of}.query_net", c.hidden_size, "q", True, "heads")
            x = heard_sound(b, c, x, q, layer, f"{of}.out_projection")
        with b.part(f"layers.{layer}.mlp"):
            h, of = norm(b, c, x, f"{name}.layer_norm_3.weight", "norm"), f"{name}.third_sub_layer"
            down = plain_mlp(b, c, h, of, c.intermediate_size, bias=True, up="dense_in", down="dense_out")
            with b.part("down"):
                x = b.add(x, down)
    return head(b, c, x, _ENDS, has_bias=True)


def listening(c: ModelConfig) -> Graph:
    """See left_by_sound()."""
    return left_by_sound(c, lambda layer, part: f"{_LAYERS}.{layer}.second_sub_layer.{_NETS[part]}", biases="kv")
