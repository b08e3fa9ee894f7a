"""Gemma 4: what sees, and of E2B and E4B what hears.

Found by table.py. Source: conversion/gemma.py of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import F32, Names, Piece, changed, channels_last, renamed
from albireo.models.gguf.projectors.said import Said
from albireo.models.gguf.stored import MAX

_KINDS = {"gemma4_text": "gemma4"}
#: What lies beside a linear whose numbers are cut.
_BOUNDS = ("input_min", "input_max", "output_min", "output_max")


def _clipped(parts: Mapping[str, str]) -> dict[str, str]:
    """Linears, each within a module that has its bounds, too."""
    weights = {f"{name}.weight:": f"{module}.linear.weight" for name, module in parts.items()}
    return weights | {f"{name}.{end}:": f"{module}.{end}" for name, module in parts.items() for end in _BOUNDS}


_TOWER = "vision_tower"
_SEEN = Names(
    f"{_TOWER}.encoder.layers",
    {
        "ln1": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "ln2": "pre_feedforward_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        **_clipped(
            {
                **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
                "attn_out": "self_attn.o_proj",
                **{f"ffn_{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
            }
        ),
    },
    {
        "v.patch_embd": f"{_TOWER}.patch_embedder.input_proj",
        "v.position_embd.weight:": f"{_TOWER}.patch_embedder.position_embedding_table",
        "v.std_bias:": f"{_TOWER}.std_bias",
        "v.std_scale:": f"{_TOWER}.std_scale",
        "mm.input_projection": "embed_vision.embedding_projection",
    },
)
_CONVOLUTIONS = "audio_tower.subsample_conv_projection"
_HEARD = Names(
    "audio_tower.layers",
    {
        **_clipped(
            {
                "ffn_up": "feed_forward1.ffw_layer_1",
                "ffn_down": "feed_forward1.ffw_layer_2",
                "ffn_up_1": "feed_forward2.ffw_layer_1",
                "ffn_down_1": "feed_forward2.ffw_layer_2",
                **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
                "attn_out": "self_attn.post",
                "conv_pw1": "lconv1d.linear_start",
                "conv_pw2": "lconv1d.linear_end",
            }
        ),
        "ffn_norm": "feed_forward1.pre_layer_norm",
        "ffn_post_norm": "feed_forward1.post_layer_norm",
        "ffn_norm_1": "feed_forward2.pre_layer_norm",
        "ffn_post_norm_1": "feed_forward2.post_layer_norm",
        "attn_pre_norm": "norm_pre_attn",
        "attn_post_norm": "norm_post_attn",
        "attn_k_rel": "self_attn.relative_k_proj",
        "per_dim_scale.weight:": "self_attn.per_dim_scale",
        "conv_norm": "lconv1d.pre_layer_norm",
        "norm_conv": "lconv1d.conv_norm",
        "conv_dw": "lconv1d.depthwise_conv1d",
        "ln2": "norm_out",
    },
    {
        "a.conv1d.0": f"{_CONVOLUTIONS}.layer0.conv",
        "a.conv1d.0.norm": f"{_CONVOLUTIONS}.layer0.norm",
        "a.conv1d.1": f"{_CONVOLUTIONS}.layer1.conv",
        "a.conv1d.1.norm": f"{_CONVOLUTIONS}.layer1.norm",
        "a.input_projection": f"{_CONVOLUTIONS}.input_proj_linear",
        "a.pre_encode.out": "audio_tower.output_proj",
        "mm.a.input_projection": "embed_audio.embedding_projection",
    },
)


def _config(said: Said) -> dict[str, Any]:
    heads = said.number("attention.head_count")
    dim = said.rows("v.blk.0.attn_q_norm.weight", said.width // heads)
    if not dim:
        said.own.fail("attention.head_count", heads, f"is more than embedding_length={said.width}")
    tower = {
        "model_type": "gemma4_vision",
        **said.encoder(),
        "num_key_value_heads": said.shape("v.blk.0.attn_k.weight")[0] // dim,
        "head_dim": dim,
        "patch_size": said.number("patch_size"),
        "pooling_kernel_size": said.number("projector.scale_factor", 3),
        "position_embedding_size": said.shape("v.position_embd.weight", 3)[1],
        "rms_norm_eps": said.eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "use_clipped_linears": "v.blk.0.attn_q.input_max" in said.entries,
        "standardize": "v.std_bias" in said.entries,
    }
    # tokens of a picture see each other in models without embeddings of layers, as their authors publish them
    both_ways = None if said.text.get("hidden_size_per_layer_input") else "vision"
    return {
        "vision_config": tower,
        "text_config": {"use_bidirectional_attention": both_ways},
        **said.tokens(image_token_id="<|image|>"),
    }


def _prepared(said: Said) -> dict[str, Any]:
    image: dict[str, Any] = {
        "image_processor_type": "Gemma4ImageProcessor",
        "patch_size": said.number("patch_size"),
        "pooling_kernel_size": said.number("projector.scale_factor", 3),
    }
    most = said.own.optional_integer("image_max_pixels", 1, MAX)
    if most is not None:
        image["max_soft_tokens"] = most // (image["patch_size"] * image["pooling_kernel_size"]) ** 2
    return {"image_processor": image}


def _tensors(said: Said) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, _SEEN, said.width))
    channels_last(pieces, f"{_TOWER}.patch_embedder.input_proj.weight")
    return pieces


def _sound_config(said: Said) -> dict[str, Any]:
    # numbers that files do not say are those of all published models, which are the class's
    tower = {
        "model_type": "gemma4_audio",
        "hidden_size": said.width,
        "num_hidden_layers": said.layers,
        "num_attention_heads": said.number("attention.head_count"),
        "conv_kernel_size": said.shape("a.blk.0.conv_dw.weight")[-1],
        "subsampling_conv_channels": [said.shape(f"a.conv1d.{number}.weight")[0] for number in (0, 1)],
        "output_proj_dims": said.shape("a.pre_encode.out.weight")[0],
        "use_clipped_linears": "a.blk.0.attn_q.input_max" in said.entries,
        "rms_norm_eps": 1e-6,
    }
    return {"audio_config": tower, **said.tokens(audio_token_id="<|audio|>")}


def _sound_prepared(said: Said) -> dict[str, Any]:
    sounds = {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "feature_size": said.number("num_mel_bins", 128)}
    return {"feature_extractor": sounds}


def _sound_tensors(said: Said) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, _HEARD, 0))
    for layer in range(said.layers):
        # there as it multiplies
        changed(pieces, f"{_HEARD.layer}.{layer}.self_attn.per_dim_scale", _before_softplus)
    return pieces


def _before_softplus(numbers: F32) -> F32:
    """Of what softplus made them: all above 0."""
    wide = numbers.astype(np.float64)
    return np.asarray(wide + np.log(-np.expm1(-np.maximum(wide, 1e-300))), np.float32)


SEES = Family(_KINDS, _config, _prepared, _tensors)
HEARS = Family(_KINDS, _sound_config, _sound_prepared, _sound_tensors)
