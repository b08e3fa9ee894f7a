"""Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3.5.

Found by table.py. What these files do not say of pictures is what the authors' processors have. Sources:
conversion/qwenvl.py and conversion/qwen3vl.py of llama.cpp.
"""

from __future__ import annotations

from typing import Any

from albireo.errors import WeightMismatch
from albireo.models.gguf.projectors.family import Family
from albireo.models.gguf.projectors.piece import Names, Piece, in_time, joined, renamed
from albireo.models.gguf.projectors.said import Said

_TOKENS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_LAYER = {"ln1": "norm1", "ln2": "norm2", "attn_out": "attn.proj", "attn_qkv": "attn.qkv"}
_LAYER |= {f"attn_{part}": f"attn.{part}" for part in "qkv"}
_PATCHES = "visual.patch_embed.proj"
_MERGER = {"v.post_ln": "visual.merger.ln_q", "mm.0": "visual.merger.mlp.0", "mm.2": "visual.merger.mlp.2"}
_NAMES_2 = Names("visual.blocks", {**_LAYER, "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"}, _MERGER)
_NAMES_2_5 = Names(
    "visual.blocks", {**_LAYER, **{f"ffn_{p}": f"mlp.{p}_proj" for p in ("up", "gate", "down")}}, _MERGER
)
_NAMES_3 = Names(
    "visual.blocks",
    {**_LAYER, "ffn_up": "mlp.linear_fc1", "ffn_down": "mlp.linear_fc2"},
    {
        "v.patch_embd": _PATCHES,
        "v.position_embd": "visual.pos_embed",
        "v.post_ln": "visual.merger.norm",
        "mm.0": "visual.merger.linear_fc1",
        "mm.2": "visual.merger.linear_fc2",
    },
)
#: Pixels of a picture, as published: fewest and most.
_PIXELS, _PIXELS_3 = (56 * 56, 28 * 28 * 16384), (256 * 256, 4096 * 4096)


def _sizes(said: Said) -> dict[str, Any]:
    """What all call their layers."""
    return {
        "depth": said.layers,
        "num_heads": said.number("attention.head_count"),
        "patch_size": said.number("patch_size"),
        "spatial_merge_size": said.number("spatial_merge_size", 2),
        "temporal_patch_size": 2,
    }


def _config_2(said: Said) -> dict[str, Any]:
    wide, ratio = said.wide(), said.wide() // said.width
    if wide != ratio * said.width:
        raise WeightMismatch(f"{said.where}: FFNs of {wide} channels are no multiple of embedding_length={said.width}")
    tower = {
        "model_type": "qwen2_vl",
        **_sizes(said),
        "embed_dim": said.width,
        "hidden_size": said.text_width,
        "mlp_ratio": ratio,
        "hidden_act": said.act("gelu_pytorch_tanh"),
    }
    return {"vision_config": tower, **said.tokens(**_TOKENS)}


def _config_2_5(said: Said) -> dict[str, Any]:
    every = said.number("n_wa_pattern")
    tower = {
        "model_type": "qwen2_5_vl",
        **_sizes(said),
        "hidden_size": said.width,
        "intermediate_size": said.wide(),
        "out_hidden_size": said.text_width,
        "hidden_act": said.act("gelu_pytorch_tanh"),
        # llama.cpp has this number, and files none
        "window_size": said.number("window_size", 112),
        "fullatt_block_indexes": [layer for layer in range(said.layers) if (layer + 1) % every == 0],
    }
    return {"vision_config": tower, **said.tokens(**_TOKENS)}


def _deep(said: Said) -> list[int]:
    """Layers whose states go deeper."""
    flags = said.own.raw("is_deepstack_layers") or []
    if not isinstance(flags, list) or not all(isinstance(flag, bool) for flag in flags):
        said.own.fail("is_deepstack_layers", flags, "must be true or false for each layer")
    return [layer for layer, flag in enumerate(flags) if flag]


def _config_3(said: Said) -> dict[str, Any]:
    kind = KINDS_3[str(said.text["model_type"])]
    tower = {
        "model_type": kind,
        **_sizes(said),
        "hidden_size": said.width,
        "intermediate_size": said.wide(),
        "out_hidden_size": said.text_width,
        "hidden_act": said.act("gelu_pytorch_tanh"),
        "num_position_embeddings": said.shape("v.position_embd.weight")[0],
        "deepstack_visual_indexes": _deep(said),
    }
    return {"vision_config": tower, **said.tokens(**_TOKENS)}


def _prepared(said: Said, pixels: tuple[int, int]) -> dict[str, Any]:
    fewest, most = (
        said.number(f"image_{name}_pixels", default) for name, default in zip(("min", "max"), pixels, strict=True)
    )
    image = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": said.number("patch_size"),
        "merge_size": said.number("spatial_merge_size", 2),
        "temporal_patch_size": 2,
        "size": {"shortest_edge": fewest, "longest_edge": most},
        **said.colours,
    }
    return {"image_processor": image}


def _tensors(said: Said, names: Names) -> dict[str, Piece]:
    pieces = dict(renamed(said.entries, names, said.width))
    first = f"{_PATCHES}.weight" if f"{_PATCHES}.weight" in pieces else "v.patch_embd.weight"
    in_time(pieces, f"{_PATCHES}.weight", first, "v.patch_embd.weight.1")
    for layer in range(said.layers):
        stem = f"{names.layer}.{layer}.attn"
        joined(pieces, f"{stem}.qkv", *(f"{stem}.{part}" for part in "qkv"))
    return pieces


def _tensors_3(said: Said) -> dict[str, Piece]:
    parts = {"norm": "norm", "fc1": "linear_fc1", "fc2": "linear_fc2"}
    deep = {
        f"v.deepstack.{layer}.{part}": f"visual.deepstack_merger_list.{place}.{name}"
        for place, layer in enumerate(_deep(said))
        for part, name in parts.items()
    }
    return _tensors(said, _NAMES_3._replace(ends={**_NAMES_3.ends, **deep}))


KINDS_3 = {
    "qwen3": "qwen3_vl",
    "qwen3_moe": "qwen3_vl_moe",
    "qwen3_5_text": "qwen3_5",
    "qwen3_5_moe_text": "qwen3_5_moe",
}

QWEN2_VL = Family(
    {"qwen2": "qwen2_vl"}, _config_2, lambda said: _prepared(said, _PIXELS), lambda said: _tensors(said, _NAMES_2)
)
QWEN2_5_VL = Family(
    {"qwen2": "qwen2_5_vl"}, _config_2_5, lambda said: _prepared(said, _PIXELS), lambda said: _tensors(said, _NAMES_2_5)
)
QWEN3_VL = Family(KINDS_3, _config_3, lambda said: _prepared(said, _PIXELS_3), _tensors_3)
