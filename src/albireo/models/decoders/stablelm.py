"""StableLM 3B and 2: LayerNorm, a gated FFN, a part of each head rotated; with or without blocks side by side."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: A third of each head rotated.
TINY = TINY_LLAMA | {
    "architectures": ["StableLmForCausalLM"],
    "model_type": "stablelm",
    "vocab_size": 149,
    "intermediate_size": 76,
    "num_key_value_heads": 4,
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.34,
    "rope_theta": 10000.0,
    "use_qkv_bias": True,
    "qk_layernorm": False,
    "use_parallel_residual": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    is_parallel = fields.flag("use_parallel_residual", False)
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=fields.flag("use_qkv_bias", False),
        is_parallel=is_parallel,
        has_ffn_norm=not is_parallel,
        has_qk_norm=fields.flag("qk_layernorm", False),
    )


CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor"),
    names={"rms_norm_eps": "layer_norm_eps"},
    # of files from before transformers had a class
    older_names={"rope_pct": "partial_rotary_factor", "num_heads": "num_attention_heads", "norm_eps": "layer_norm_eps"},
    built_in={"rotary_scaling_factor": 1.0},
    blocks=_blocks,
    defaults={
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
    },
    class_names=("StableLmForCausalLM",),
)
build = partial(decoder, names=Names(head_norm="{}_layernorm", per_head=True))
