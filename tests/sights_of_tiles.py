"""Tiny models that cut pictures into square tiles of one size, with marks between them.

Used by tiny_sights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import sight_inputs
from sight_family import LLAMA, SIGLIP, Family, text_of

_SIDE = {"height": 32, "width": 32}
_MARKS = ("<|START_OF_IMG|>", "<|IMG_PATCH|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>")
_TILES = tuple(f"TILE_{number}" for number in range(1, 13))


def _cohere(**changes: Any) -> dict[str, Any]:
    """A text part whose logits transformers multiplies by as much as its own class does."""
    return {**text_of("cohere2", logit_scale=1.0), **changes}


def _paligemma(text: str, **changes: Any) -> Family:
    return Family(
        "PaliGemmaForConditionalGeneration",
        ("<image>", "<bos>"),
        "<image>",
        lambda ids: {
            "text_config": {**text_of(text, hidden_size=48, **changes), "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "image_size": 16},
            "projection_dim": 48,
            "image_token_index": ids["<image>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "SiglipImageProcessor",
                "size": {"height": 16, "width": 16},
                "image_seq_length": 4,
            },
            "processor_config.json": {"processor_class": "PaliGemmaProcessor"},
        },
        inputs=sight_inputs.of_paligemma,
    )


_MINICPM = {"image_processor_type": "MiniCPMV4_6ImageProcessor", "patch_size": 8, "scale_resolution": 48}
_MINICPM |= {"max_slice_nums": 4}

_OVIS = ("<IMG_ATOM>", "<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")


def _of_ovis2(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Without what tells the marks around them."""
    return sight_inputs.of_internvl(prompt, ids, [tile[:, : len(tile)] for tile in tiles])


_GRANITE_GRIDS = [[32, 32], [32, 64], [64, 32], [64, 64]]
_GRANITE_IMAGE = {"size": _SIDE, "crop_size": _SIDE, "image_grid_pinpoints": _GRANITE_GRIDS}
_GRANITE = {"patch_size": 8, "vision_feature_select_strategy": "full", "downsample_rate": "2/4"}


def _granite4_vision(tokenizer: Any) -> Any:
    import transformers
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    return transformers.Granite4VisionProcessor(LlavaNextImageProcessorPil(**_GRANITE_IMAGE), tokenizer, **_GRANITE)


def _asking_nothing(model: Any) -> None:
    """Its whole asks what its text part made of pictures, which that never says."""
    forward = model.language_model.forward

    def answered(*given: Any, **named: Any) -> Any:
        found = forward(*given, **named)
        found.image_outputs = None
        return found

    model.language_model.forward = answered


OF_TILES: dict[str, Family] = {
    "ovis2": Family(
        "Ovis2ForConditionalGeneration",
        _OVIS,
        # no token
        "<image>\n",
        lambda ids: {
            "text_config": {**LLAMA, "model_type": "qwen2", "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "hidden_act": "silu", "vocab_size": 41, "hidden_stride": 2},
            "image_token_id": ids["<IMG_ATOM>"],
            "visual_indicator_token_ids": [ids[token] for token in _OVIS[1:]],
            "hidden_size": 48,
            "vocab_size": len(ids),
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Ovis2ImageProcessor",
                "size": _SIDE,
                "crop_to_patches": True,
                "max_patches": 4,
            },
            "processor_config.json": {"processor_class": "Ovis2Processor", "image_seq_length": 4},
        },
        inputs=_of_ovis2,
    ),
    "qianfan_ocr": Family(
        "QianfanOCRForConditionalGeneration",
        ("<IMG_CONTEXT>", "<img>", "</img>"),
        # no token
        "<image>",
        lambda ids: {
            "text_config": {**text_of("qwen3"), "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "image_size": [32, 32], "patch_size": [8, 8]},
            "image_token_id": ids["<IMG_CONTEXT>"],
            "image_seq_length": 4,
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "GotOcr2ImageProcessor",
                "size": _SIDE,
                "crop_to_patches": False,
                "max_patches": 3,
            },
            "processor_config.json": {
                "processor_class": "QianfanOCRProcessor",
                "image_seq_length": 4,
                "image_placeholder_token": "<image>",
            },
        },
        inputs=sight_inputs.of_internvl,
    ),
    "minicpmv4_6": Family(
        "MiniCPMV4_6ForConditionalGeneration",
        ("<|image_pad|>", "<|video_pad|>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"),
        "<|image_pad|>",
        lambda ids: {
            "text_config": {**text_of("qwen3_5_text"), "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "num_hidden_layers": 3},
            "insert_layer_id": 0,
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
        },
        {"preprocessor_config.json": _MINICPM},
        inputs=sight_inputs.of_minicpmv4_6,
    ),
    # rows of six layers, of which the first has them in place of embeddings
    "granite4_vision": Family(
        "Granite4VisionForConditionalGeneration",
        ("<image>",),
        "<image>",
        lambda ids: {
            "text_config": {
                **text_of("granite", num_hidden_layers=8),
                **{"model_type": "granite4_vision_text", "vocab_size": len(ids)},
            },
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model", "hidden_size": 64},
            "qformer_config": {"model_type": "blip_2_qformer", "num_hidden_layers": 1, "intermediate_size": 40},
            "deepstack_layer_map": [[1, 3], [-1, 0]],
            "spatial_target_layers": [2, 5, 6, 7],
            "downsample_rate": "2/4",
            "vision_feature_select_strategy": "full",
            "image_grid_pinpoints": _GRANITE_GRIDS,
            "image_token_index": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "LlavaNextImageProcessor", **_GRANITE_IMAGE},
            "processor_config.json": {"processor_class": "Granite4VisionProcessor", **_GRANITE},
        },
        _granite4_vision,
    ),
    "llama4": Family(
        "Llama4ForConditionalGeneration",
        ("<|image|>", "<|image_start|>", "<|image_end|>", "<|patch|>", "<|tile_x_separator|>", "<|tile_y_separator|>"),
        "<|image|>",
        lambda ids: {
            "text_config": {**text_of("llama4_text"), "vocab_size": len(ids)},
            "vision_config": {
                **SIGLIP,
                **{"intermediate_size": 128, "projector_input_dim": 40, "projector_output_dim": 40},
                "vision_output_dim": 40,
            },
            "image_token_id": ids["<|patch|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Llama4ImageProcessor",
                "size": _SIDE,
                "max_patches": 4,
            },
            "processor_config.json": {"processor_class": "Llama4Processor", "patch_size": 8},
        },
        inputs=sight_inputs.of_internvl,
        mended=_asking_nothing,
    ),
    "paligemma": _paligemma("gemma"),
    # windows that a prompt fits in, and what is answered does not
    "paligemma, of gemma2": _paligemma("gemma2", sliding_window=56),
    "aya_vision": Family(
        "AyaVisionForConditionalGeneration",
        ("<image>", *_MARKS, *_TILES, "TILE_GLOBAL"),
        "<image>",
        lambda ids: {
            "text_config": _cohere(vocab_size=len(ids)),
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "alignment_intermediate_size": 40,
            "image_token_index": ids["<|IMG_PATCH|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "GotOcr2ImageProcessor",
                "size": _SIDE,
                "max_patches": 3,
            },
            "processor_config.json": {
                "processor_class": "AyaVisionProcessor",
                "patch_size": 8,
                "img_size": 32,
                "downsample_factor": 2,
            },
        },
        inputs=sight_inputs.of_internvl,
    ),
    "cohere2_vision": Family(
        "Cohere2VisionForConditionalGeneration",
        _MARKS,
        "<|IMG_PATCH|>",
        lambda ids: {
            "text_config": _cohere(vocab_size=len(ids)),
            "vision_config": {**SIGLIP, "model_type": "siglip_vision_model"},
            "alignment_intermediate_size": 40,
            "image_token_id": ids["<|IMG_PATCH|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Cohere2VisionImageProcessor",
                "size": _SIDE,
                "patch_size": 2,
                "max_patches": 4,
            },
        },
        inputs=sight_inputs.of_internvl,
    ),
}
