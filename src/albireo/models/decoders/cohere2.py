"""Command R7B, Command A: as Command R; three of four layers have a window, and only they rotate."""

from __future__ import annotations

from albireo.json_file import Fields, keys
from albireo.models.config import ConfigRules
from albireo.models.decoders import cohere
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and without rotation.
TINY = TINY_LLAMA | {
    "architectures": ["Cohere2ForCausalLM"],
    "model_type": "cohere2",
    "vocab_size": 149,
    "intermediate_size": 76,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.4,
    "rope_theta": 50000.0,
    "sliding_window": 15,
    "sliding_window_pattern": 2,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 5,
    "pad_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    if fields.has("sliding_window") and fields.raw("sliding_window") is None:
        fields.unsupported("sliding_window", None, "a number: layers without a window do not rotate")
    bias = fields.flag("attention_bias", False)
    return BlockSettings(
        is_layer_norm=True,
        has_norm_bias=False,
        qkv_bias=bias,
        o_bias=bias,
        is_parallel=True,
        has_ffn_norm=False,
    )


CONFIG = ConfigRules(
    keys=keys("logit_scale"),
    names={"rms_norm_eps": "layer_norm_eps"},
    # Command R says the shorter length it was trained for first by the other name
    older_names={"model_max_length": "max_position_embeddings"},
    # Command R has 131,072 and, of its cache, 8,192
    deciding=frozenset({"model_max_length"}),
    blocks=_blocks,
    has_pairs_side_by_side=True,
    windows="periodic",
    period=4,
    rotates_windows=True,
    defaults={
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    built_in={
        "layer_switch": 4,
        "_sliding_window_pattern": 4,
        "order_of_interleaved_layers": "local_attn_first",
        "position_embedding_type": "rope_gptj",
        "use_embedding_sharing": True,
        "use_gated_activation": True,
        "use_parallel_block": True,
        "use_parallel_embedding": True,
    },
)
build = cohere.build
