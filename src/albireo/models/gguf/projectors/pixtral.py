"""Pixtral: of Mistral Small 3.1 and later, Ministral 3, and Pixtral 12B.

Found by table.py. Source: conversion/llava.py and conversion/pixtral.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Names, Piece, changed, halves_apart, renamed
from albireo.models.gguf.projectors.said import Said

_NAMES = Names(
    "vision_tower.transformer.layers",
    {
        "ln1": "attention_norm",
        "ln2": "ffn_norm",
        "attn_q": "attention.q_proj",
        "attn_k": "attention.k_proj",
        "attn_v": "attention.v_proj",
        "attn_out": "attention.o_proj",
        **{f"ffn_{part}": f"feed_forward.{part}_proj" for part in ("up", "gate", "down")},
    },
    {
        "v.patch_embd": "vision_tower.patch_conv",
        "v.pre_ln": "vision_tower.ln_pre",
        "mm.1": "multi_modal_projector.linear_1",
        "mm.2": "multi_modal_projector.linear_2",
        "mm.input_norm": "multi_modal_projector.norm",
        "mm.patch_merger": "multi_modal_projector.patch_merger.merging_layer",
    },
)
_MERGER = "mm.patch_merger.weight"
#: What stands behind each line: the text part has the same row.
_LINE_BREAK = "v.token_embd.img_break"


def _config(said: Said) -> dict[str, Any]:
    tower = {
        "model_type": "pixtral",
        **said.encoder(),
        "patch_size": said.number("patch_size"),
        "image_size": said.number("image_size"),
        "hidden_act": said.act("gelu"),
        # of files made of Mistral's own; those made of transformers' do not say it
        "rope_theta": said.whole.number("rope.freq_base", 1.0, 1e9, 10000.0),
    }
    whole = {
        "vision_config": tower,
        "multimodal_projector_bias": "mm.1.bias" in said.entries,
        "projector_hidden_act": "gelu",
        "vision_feature_layer": -1,
        **said.tokens(image_token_index="[IMG]"),
    }
    if _MERGER in said.entries:
        return {**whole, "spatial_merge_size": said.number("spatial_merge_size", 1)}
    return {**whole, "model_type": "llava", "vision_feature_select_strategy": "full"}


def _prepared(said: Said) -> dict[str, Any]:
    image = {
        "image_processor_type": "PixtralImageProcessor",
        "size": {"longest_edge": said.number("image_size")},
        **said.colours,
    }
    merge = {"spatial_merge_size": said.number("spatial_merge_size", 1)} if _MERGER in said.entries else {}
    return {"image_processor": image, "patch_size": said.number("patch_size"), **merge}


def _tensors(said: Said) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, _NAMES, said.width))
    pieces.pop(_LINE_BREAK, None)
    make = halves_apart(said.number("attention.head_count"))
    for layer in range(said.layers):
        for part in "qk":
            changed(pieces, f"{_NAMES.layer}.{layer}.attention.{part}_proj.weight", make)
    return pieces


PIXTRAL = Family(
    {kind: "mistral3" for kind in ("mistral", "ministral3", "mistral4", "llama")}, _config, _prepared, _tensors
)
