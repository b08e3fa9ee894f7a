"""Tiny models whose pictures are one tile each: a square, whatever their proportions, or one of their own.

Used by tiny_sights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import sight_inputs
from further_towers import ERNIE
from sight_family import LLAMA, SIGLIP, Family, text_of
from tiny_towers import without_layer_scale

torch = pytest.importorskip("torch")

_MARKS = ("<image_placeholder>", "<begin_of_image>", "<end_of_image>")
_M3_MARKS = ("]<]image[>[", "]<]video[>[", "]<]start of image[>[", "]<]end of image[>[")
_ERNIE_MARKS = (
    *("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"),
    *("<|VIDEO_START|>", "<|VIDEO_PLACEHOLDER|>", "<|VIDEO_END|>"),
)
_ERNIE_PARTS = ("_start", "", "_end")
_SIDE = {"height": 32, "width": 32}
_OPENS = {"use_default_system_prompt": True}
_VQ = {"base_channels": 32, "num_embeddings": 8, "projection_dim": 8, "latent_channels": 8}


def _of_nemotron_h_omni(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches in reading order."""
    patches = [sight_inputs.cut(tile, 1).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8) for tile in tiles]
    grids = [[tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles]
    return {"pixel_values": torch.cat(patches), "image_grid_hw": torch.tensor(grids)}


def _of_video_llama_3(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches in reading order, none merged."""
    patches = [sight_inputs.cut(tile, 1).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8) for tile in tiles]
    grids = [[1, tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles]
    merged = torch.ones(len(tiles), dtype=torch.int64)
    return {"pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids), "image_merge_sizes": merged}


def _of_kimi_k25(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches in reading order, each a picture."""
    patches = [sight_inputs.cut(tile, 1).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3, 8, 8) for tile in tiles]
    grids = [[1, tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles]
    return {"pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids)}


def _of_minimax_m3_vl(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """As of Qwen, but that positions do not ask what a token is."""
    return sight_inputs.of_exaone4_5(prompt, {"<|image_pad|>": ids[_M3_MARKS[0]]}, tiles)


def _of_ernie4_5_vl_moe(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches in blocks of what is merged. To experts what opens and ends a picture is of it too."""
    patches = [sight_inputs.cut(tile, 2).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8) for tile in tiles]
    grids = [[1, tile.shape[0] // 8, tile.shape[1] // 8] for tile in tiles]
    opens, image, ends = (ids[mark] for mark in _ERNIE_MARKS[:3])
    return {
        "pixel_values": torch.cat(patches),
        "image_grid_thw": torch.tensor(grids),
        "mm_token_type_ids": torch.tensor([[int(each == image) for each in prompt]]),
        "moe_mm_token_type_ids": torch.tensor([[int(each in (opens, image, ends)) for each in prompt]]),
    }


OF_SQUARES: dict[str, Family] = {
    "ernie4_5_vl_moe": Family(
        "Ernie4_5_VLMoeForConditionalGeneration",
        _ERNIE_MARKS,
        "".join(_ERNIE_MARKS[:3]),
        lambda ids: {
            "text_config": {**ERNIE, "vocab_size": len(ids)},
            "vision_config": {
                **{"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2, "patch_size": 8},
            },
            **{f"image{part}_token_id": ids[mark] for part, mark in zip(_ERNIE_PARTS, _ERNIE_MARKS[:3], strict=True)},
            **{f"video{part}_token_id": ids[mark] for part, mark in zip(_ERNIE_PARTS, _ERNIE_MARKS[3:], strict=True)},
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Ernie4_5_VLMoeImageProcessor",
                "patch_size": 8,
                "size": {"shortest_edge": 256, "longest_edge": 4096},
            }
        },
        inputs=_of_ernie4_5_vl_moe,
    ),
    "nemotron_h_omni": Family(
        "NemotronH_Omni_Reasoning_V3",
        ("<image>", "<img>", "</img>"),
        "<image>",
        lambda ids: {
            "text_config": {**text_of("nemotron_h"), "vocab_size": len(ids)},
            "vision_config": {
                **{key: value for key, value in SIGLIP.items() if key not in ("intermediate_size", "image_size")},
                **{"model_type": "radio", "mlp_ratio": 1.5, "max_img_size": 48, "num_cls_tokens": 2},
                **{"num_registers": 3, "video_temporal_patch_size": 2},
            },
            "audio_config": None,
            "vision_hidden_size": 32,
            "projector_hidden_size": 40,
            "image_token_id": ids["<image>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "NemotronH_Omni_Reasoning_V3ImageProcessor",
                "patch_size": 8,
                "min_num_patches": 8,
                "max_num_patches": 36,
                "norm_mean": [0.5, 0.5, 0.5],
            }
        },
        inputs=_of_nemotron_h_omni,
        mended=without_layer_scale,
    ),
    "kimi_k25": Family(
        "Kimi_K25ForConditionalGeneration",
        ("<|media_begin|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>", "<|kimi_k25_video_placeholder|>"),
        "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n",
        lambda ids: {
            "text_config": {**text_of("deepseek_v3"), "vocab_size": len(ids)},
            "vision_config": {
                **{key: value for key, value in SIGLIP.items() if key != "image_size"},
                **{"pos_emb_height": 4, "pos_emb_width": 4},
            },
            "projection_hidden_size": 32,
            "image_token_id": ids["<|media_pad|>"],
            "video_token_id": ids["<|kimi_k25_video_placeholder|>"],
            "tie_word_embeddings": False,
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Kimi_K25ImageProcessor",
                "patch_size": 8,
                "max_patches": 32,
                "size": {"max_height": 8, "max_width": 8},
            }
        },
        inputs=_of_kimi_k25,
    ),
    "minimax_m3_vl": Family(
        "MiniMaxM3SparseForConditionalGeneration",
        _M3_MARKS,
        _M3_MARKS[0],
        lambda ids: {
            "text_config": {**text_of("minimax_m3_vl_text"), "vocab_size": len(ids)},
            "vision_config": SIGLIP,
            "projector_hidden_size": 40,
            "image_token_index": ids[_M3_MARKS[0]],
            "video_token_index": ids[_M3_MARKS[1]],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "MiniMaxM3VLImageProcessor",
                "patch_size": 8,
                "size": {"shortest_edge": 256, "longest_edge": 4096},
            }
        },
        inputs=_of_minimax_m3_vl,
    ),
    "video_llama_3": Family(
        "VideoLlama3ForConditionalGeneration",
        ("<|image_pad|>", "<|video_pad|>"),
        "<|image_pad|>",
        lambda ids: {
            "text_config": {**LLAMA, "model_type": "qwen2", "vocab_size": len(ids)},
            "vision_config": {key: value for key, value in SIGLIP.items() if key != "image_size"},
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "VideoLlama3ImageProcessor",
                "patch_size": 8,
                "size": {"shortest_edge": 256, "longest_edge": 2048},
            }
        },
        inputs=_of_video_llama_3,
    ),
    "vipllava": Family(
        "VipLlavaForConditionalGeneration",
        ("<image>",),
        "<image>",
        lambda ids: {
            "text_config": {**LLAMA, "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "model_type": "clip_vision_model", "num_hidden_layers": 3},
            "vision_feature_layer": [-2, -3, 1],
            "image_token_index": ids["<image>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "CLIPImageProcessor",
                "size": {"shortest_edge": 32},
                "crop_size": _SIDE,
            },
            "processor_config.json": {
                "processor_class": "LlavaProcessor",
                "patch_size": 8,
                "vision_feature_select_strategy": "default",
                "num_additional_image_tokens": 1,
            },
        },
        inputs=sight_inputs.of_internvl,
    ),
    "janus": Family(
        "JanusForConditionalGeneration",
        _MARKS,
        "<image_placeholder>",
        lambda ids: {
            "text_config": {**LLAMA, "vocab_size": len(ids)},
            "vision_config": {
                **{key: value for key, value in SIGLIP.items() if key != "intermediate_size"},
                **{"mlp_ratio": 1.5, "projection_dim": 48, "num_image_tokens": 16},
            },
            "vq_config": _VQ,
            "image_token_id": ids["<image_placeholder>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "JanusImageProcessor", "size": _SIDE},
            "processor_config.json": {"processor_class": "JanusProcessor", "num_image_tokens": 16, **_OPENS},
        },
        inputs=sight_inputs.of_internvl,
    ),
    "deepseek_vl": Family(
        "DeepseekVLForConditionalGeneration",
        _MARKS,
        "<image_placeholder>",
        lambda ids: {
            "text_config": {**LLAMA, "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "image_token_id": ids["<image_placeholder>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "DeepseekVLImageProcessor", "size": _SIDE},
            "processor_config.json": {"processor_class": "DeepseekVLProcessor", "num_image_tokens": 16},
        },
        inputs=sight_inputs.of_internvl,
    ),
}
