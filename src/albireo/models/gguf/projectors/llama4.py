"""Llama 4.

Found by table.py. Source: conversion/llama4.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Names, Piece, renamed
from albireo.models.gguf.projectors.said import Said

_TOWER = "vision_model"
_NAMES = Names(
    f"{_TOWER}.model.layers",
    {
        "ln1": "input_layernorm",
        "ln2": "post_attention_layernorm",
        # as it was called for a while
        "attn_post_norm": "post_attention_layernorm",
        **{f"attn_{part}": f"self_attn.{part}_proj" for part in "qkv"},
        "attn_out": "self_attn.o_proj",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    },
    {
        "v.class_embd:": f"{_TOWER}.class_embedding",
        "v.position_embd.weight:": f"{_TOWER}.positional_embedding_vlm",
        "v.patch_embd": f"{_TOWER}.patch_embedding.linear",
        "v.pre_ln": f"{_TOWER}.layernorm_pre",
        "v.post_ln": f"{_TOWER}.layernorm_post",
        "mm.model.mlp.1": f"{_TOWER}.vision_adapter.mlp.fc1",
        "mm.model.mlp.2": f"{_TOWER}.vision_adapter.mlp.fc2",
        "mm.model.fc": "multi_modal_projector.linear_1",
    },
)


def _config(said: Said) -> dict[str, Any]:
    inner = said.shape("mm.model.mlp.1.weight")[0]
    tower = {
        "model_type": "llama4_vision_model",
        **said.encoder(),
        "patch_size": said.number("patch_size"),
        "image_size": said.number("image_size"),
        "hidden_act": said.act("gelu"),
        "pixel_shuffle_ratio": 1 / said.number("projector.scale_factor", 2),
        **dict.fromkeys(("projector_input_dim", "projector_output_dim", "vision_output_dim"), inner),
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return {"vision_config": tower, **said.tokens(image_token_index="<|patch|>")}


def _prepared(said: Said) -> dict[str, Any]:
    side = said.number("image_size")
    image = {"image_processor_type": "Llama4ImageProcessor", "size": {"height": side, "width": side}, **said.colours}
    ratio = 1 / said.number("projector.scale_factor", 2)
    return {"image_processor": image, "patch_size": said.number("patch_size"), "pixel_shuffle_ratio": ratio}


def _tensors(said: Said) -> dict[str, Piece]:
    return dict(renamed(said.entries, _NAMES, said.width))


LLAMA4 = Family({"llama4_text": "llama4"}, _config, _prepared, _tensors)
