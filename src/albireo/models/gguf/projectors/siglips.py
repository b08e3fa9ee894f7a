"""SigLIP and what makes rows of its patches: Gemma 3, Idefics 3 and SmolVLM, LFM2-VL.

Found by table.py. What these files do not say of pictures is what the authors' processors have. Sources:
conversion/gemma.py, conversion/smolvlm.py and conversion/lfm2.py of llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Names, Piece, changed, channels_last, renamed
from albireo.models.gguf.projectors.said import Said

LAYER = {
    "ln1": "layer_norm1",
    "ln2": "layer_norm2",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_out": "self_attn.out_proj",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}


def siglip_names(module: str, ends: Mapping[str, str]) -> Names:
    """Args: module: that all of the tower is in. ends: further ones."""
    own = {
        "v.patch_embd": f"{module}.embeddings.patch_embedding",
        "v.position_embd": f"{module}.embeddings.position_embedding",
        "v.post_ln": f"{module}.post_layernorm",
    }
    return Names(f"{module}.encoder.layers", LAYER, {**own, **ends})


def siglip_config(said: Said, kind: str) -> dict[str, Any]:
    """vision_config. Args: kind: its model_type."""
    return {
        "model_type": kind,
        **said.encoder(),
        "patch_size": said.number("patch_size"),
        "hidden_act": said.act("gelu_pytorch_tanh"),
        "layer_norm_eps": said.eps,
    }


_GEMMA3 = siglip_names(
    "vision_tower",
    {
        "mm.soft_emb_norm": "multi_modal_projector.mm_soft_emb_norm",
        "mm.input_projection.weight:": "multi_modal_projector.mm_input_projection_weight",
    },
)


def _gemma3_rows(said: Said) -> int:
    """Of a tile."""
    on_side = said.number("image_size") // said.number("patch_size")
    return (on_side // said.number("projector.scale_factor", 4)) ** 2


def _gemma3_config(said: Said) -> dict[str, Any]:
    return {
        "vision_config": {**siglip_config(said, "siglip_vision_model"), "image_size": said.number("image_size")},
        "mm_tokens_per_image": _gemma3_rows(said),
        **said.tokens(
            image_token_index="<image_soft_token>",
            boi_token_index="<start_of_image>",
            eoi_token_index="<end_of_image>",
        ),
    }


def _gemma3_prepared(said: Said) -> dict[str, Any]:
    side = said.number("image_size")
    image = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": side, "width": side}, **said.colours}
    return {"image_processor": image, "image_seq_length": _gemma3_rows(said)}


def _gemma3_tensors(said: Said) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, _GEMMA3, said.width))
    # files have 1 added, as is then multiplied with
    changed(pieces, "multi_modal_projector.mm_soft_emb_norm.weight", lambda weight: weight - np.float32(1.0))
    return pieces


GEMMA3 = Family({"gemma3_text": "gemma3"}, _gemma3_config, _gemma3_prepared, _gemma3_tensors)

_IDEFICS3 = siglip_names("vision_model", {"mm.model.fc": "connector.modality_projection.proj"})


def _idefics3_config(said: Said) -> dict[str, Any]:
    return {
        "vision_config": {**siglip_config(said, "idefics3_vision"), "image_size": said.number("image_size")},
        "scale_factor": said.number("projector.scale_factor", 2),
        **said.tokens(image_token_id="<image>"),
    }


def _idefics3_prepared(said: Said) -> dict[str, Any]:
    side = said.number("image_size")
    rows = (side // said.number("patch_size") // said.number("projector.scale_factor", 2)) ** 2
    image = {
        "image_processor_type": "Idefics3ImageProcessor",
        # as published files have it that say nothing
        "size": {"longest_edge": said.number("preproc_image_size", 4 * side)},
        "max_image_size": {"longest_edge": side},
        **said.colours,
    }
    return {"image_processor": image, "image_seq_len": rows}


def _idefics3_tensors(said: Said) -> dict[str, Piece]:
    return dict(renamed(said.entries, _IDEFICS3, said.width))


IDEFICS3 = Family({"llama": "idefics3"}, _idefics3_config, _idefics3_prepared, _idefics3_tensors)

_LFM2 = siglip_names(
    "vision_tower",
    {
        "mm.input_norm": "multi_modal_projector.layer_norm",
        "mm.1": "multi_modal_projector.linear_1",
        "mm.2": "multi_modal_projector.linear_2",
    },
)


def _lfm2_config(said: Said) -> dict[str, Any]:
    inner, wide = said.shape("mm.1.weight", 2)
    scale = said.number("projector.scale_factor", 2)
    if wide != said.width * scale**2:
        said.own.fail("projector.scale_factor", scale, f"does not go with tensor mm.1.weight of {[inner, wide]}")
    return {
        "vision_config": {
            **siglip_config(said, "siglip2_vision_model"),
            "num_patches": said.shape("v.position_embd.weight")[0],
        },
        "downsample_factor": scale,
        "projector_hidden_size": inner,
        "projector_use_layernorm": "mm.input_norm.weight" in said.entries,
        "projector_bias": "mm.1.bias" in said.entries,
        **said.tokens(image_token_id="<image>"),
    }


def _lfm2_prepared(said: Said) -> dict[str, Any]:
    image = {
        "image_processor_type": "Lfm2VlImageProcessor",
        "encoder_patch_size": said.number("patch_size"),
        "downsample_factor": said.number("projector.scale_factor", 2),
        **said.colours,
    }
    return {"image_processor": image}


def _lfm2_tensors(said: Said) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, _LFM2, said.width))
    channels_last(pieces, "vision_tower.embeddings.patch_embedding.weight")
    return pieces


LFM2 = Family({"lfm2": "lfm2_vl"}, _lfm2_config, _lfm2_prepared, _lfm2_tensors)
