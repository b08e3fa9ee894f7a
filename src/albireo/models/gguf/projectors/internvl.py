"""InternVL 2, 2.5, 3 and 3.5.

Found by table.py. Source: conversion/internvl.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Names, Piece, renamed
from albireo.models.gguf.projectors.said import Said
from albireo.models.settings.wholes import WHOLES

_TOWER = "vision_tower"
_NAMES = Names(
    f"{_TOWER}.encoder.layer",
    {
        "ln1": "layernorm_before",
        "ln2": "layernorm_after",
        **{f"attn_{part}": f"attention.{part}_proj" for part in "qkv"},
        "attn_out": "attention.projection_layer",
        "attn_q_norm": "attention.q_norm",
        "attn_k_norm": "attention.k_norm",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
        "ls1.weight:": "lambda_1",
        "ls2.weight:": "lambda_2",
    },
    {
        "v.class_embd:": f"{_TOWER}.embeddings.cls_token",
        "v.position_embd.weight:": f"{_TOWER}.embeddings.position_embeddings",
        "v.patch_embd": f"{_TOWER}.embeddings.patch_embeddings.projection",
        "v.post_ln": f"{_TOWER}.layernorm",
        "mm.model.mlp.0": "multi_modal_projector.layer_norm",
        "mm.model.mlp.1": "multi_modal_projector.linear_1",
        "mm.model.mlp.3": "multi_modal_projector.linear_2",
    },
)


def _config(said: Said) -> dict[str, Any]:
    entries = said.entries
    tower = {
        "model_type": "internvl_vision",
        **said.encoder(),
        "patch_size": said.number("patch_size"),
        "image_size": said.number("image_size"),
        "hidden_act": said.act("gelu"),
        "layer_norm_eps": said.eps,
        "norm_type": "layer_norm" if "v.blk.0.ln1.bias" in entries else "rms_norm",
        "attention_bias": "v.blk.0.attn_q.bias" in entries,
        "use_qk_norm": "v.blk.0.attn_q_norm.weight" in entries,
        "use_mean_pooling": "v.post_ln.weight" not in entries,
    }
    return {
        "vision_config": tower,
        "downsample_ratio": 1 / said.number("projector.scale_factor", 2),
        **said.tokens(image_token_id="<IMG_CONTEXT>"),
    }


def _prepared(said: Said) -> dict[str, Any]:
    side = said.number("image_size")
    rows = (side // said.number("patch_size") // said.number("projector.scale_factor", 2)) ** 2
    image = {
        "image_processor_type": "GotOcr2ImageProcessor",
        "size": {"height": side, "width": side},
        "min_patches": said.number("preproc_min_tiles", 1),
        "max_patches": said.number("preproc_max_tiles", 12),
        **said.colours,
    }
    return {"image_processor": image, "image_seq_length": rows}


def _tensors(said: Said) -> dict[str, Piece]:
    return dict(renamed(said.entries, _NAMES, said.width))


INTERNVL = Family(
    {architecture: "internvl" for architecture in WHOLES["internvl"].parts.values()}, _config, _prepared, _tensors
)
