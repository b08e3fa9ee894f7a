"""MiniCPM-V 4.6.

Found by table.py. Source: conversion/minicpm.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Piece, renamed
from albireo.models.gguf.projectors.said import Said
from albireo.models.gguf.projectors.siglips import siglip_config, siglip_names

_WITHIN, _MERGER = "vision_tower.vit_merger", "merger.mlp.0"
_NAMES = siglip_names(
    "vision_tower",
    {
        "v.vit_merger.ln1": f"{_WITHIN}.layer_norm1",
        **{f"v.vit_merger.attn_{part}": f"{_WITHIN}.self_attn.{part}_proj" for part in "qkv"},
        "v.vit_merger.attn_out": f"{_WITHIN}.self_attn.out_proj",
        "v.vit_merger.ds_ln": f"{_WITHIN}.pre_norm",
        "v.vit_merger.ds_ffn_up": f"{_WITHIN}.linear_1",
        "v.vit_merger.ds_ffn_down": f"{_WITHIN}.linear_2",
        "mm.input_norm": f"{_MERGER}.pre_norm",
        "mm.up": f"{_MERGER}.linear_1",
        "mm.down": f"{_MERGER}.linear_2",
    },
)


def _mode(said: Said) -> str:
    """How many patches become a row."""
    scale = said.number("projector.scale_factor", 4)
    if scale != 4:
        said.own.unsupported("projector.scale_factor", scale, "supported: 4, whose rows become fewer twice")
    return "16x"


def _config(said: Said) -> dict[str, Any]:
    where = said.own.raw("wa_layer_indexes")
    if not isinstance(where, list) or len(where) != 1:
        said.own.fail("wa_layer_indexes", where, "must be one number of a layer")
    side = round(said.shape("v.position_embd.weight")[0] ** 0.5)
    tower = {**siglip_config(said, "minicpmv4_6_vision"), "image_size": side * said.number("patch_size")}
    return {
        "vision_config": tower,
        "insert_layer_id": where[0],
        "downsample_mode": _mode(said),
        **said.tokens(image_token_id="<|image_pad|>"),
    }


def _prepared(said: Said) -> dict[str, Any]:
    image = {
        "image_processor_type": "MiniCPMV4_6ImageProcessor",
        "patch_size": said.number("patch_size"),
        "scale_resolution": said.number("image_size"),
        "downsample_mode": _mode(said),
        **said.colours,
    }
    return {"image_processor": image}


def _tensors(said: Said) -> dict[str, Piece]:
    return dict(renamed(said.entries, _NAMES, said.width))


MINICPM_V4_6 = Family({"qwen3_5_text": "minicpmv4_6"}, _config, _prepared, _tensors)
