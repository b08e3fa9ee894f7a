"""Tiny models that answer about pictures, with random weights, as transformers makes and saves them: model, tokenizer,
template and processor in one directory; and what transformers answers.

Used by the tests that go from a message to an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import sight_inputs
from albireo.images.processor import open_processor
from made_once import made_once
from sight_family import LLAMA as _LLAMA
from sight_family import SIGLIP as _SIGLIP
from sight_family import Family
from sight_family import text_of as _text_of
from sights_of_documents import OF_DOCUMENTS
from sights_of_sheets import OF_SHEETS
from sights_of_squares import OF_SQUARES
from sights_of_tiles import OF_TILES
from tiny_towers import BUFFERS
from variants import VARIANTS

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
Image = pytest.importorskip("PIL.Image")

_TURNS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}IMAGE{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


_LINES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5))
_SMOL = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}, "resample": 1}


_SMOL_VIDEO = {"video_sampling": {"fps": 1, "max_frames": 3, "video_size": {"longest_edge": 64}}}


def _smolvlm(tokenizer: Any) -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return transformers.Idefics3Processor(Idefics3ImageProcessorPil(**_SMOL), tokenizer, image_seq_len=4)


_PIXTRAL = {**_SIGLIP, "model_type": "pixtral", "hidden_act": "silu", "head_dim": 16}
_QWEN = {"hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2, "patch_size": 8}
_QWEN |= {"num_position_embeddings": 16}
_QWEN_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2], "mrope_interleaved": True}
_QWEN_TEXT = {**_LLAMA, "model_type": "qwen3_vl_text", "head_dim": 16, "rope_parameters": _QWEN_ROPE}
_QWEN2_TEXT = {key: value for key, value in _LLAMA.items() if key not in ("model_type", "rope_theta")}
_QWEN2_TEXT |= {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 3, 2]}}
_QWEN2 = {key: value for key, value in _QWEN.items() if key != "num_position_embeddings"}
_QWEN2_VL = {key: value for key, value in _QWEN2.items() if key != "intermediate_size"}
# two of three layers see windows of 2 x 2 of what becomes a row
_QWEN2_5 = {**_QWEN2, "depth": 3, "window_size": 32, "fullatt_block_indexes": [1], "out_hidden_size": 48}
_QWEN_SIZES = {"size": {"shortest_edge": 256, "longest_edge": 4096}}
_INTERNVL = {**_SIGLIP, "image_size": [32, 32], "patch_size": [8, 8], "use_qk_norm": True}
_GOT = {"size": {"height": 32, "width": 32}, "crop_to_patches": False, "min_patches": 1, "max_patches": 3}
_LFM2 = {
    "encoder_patch_size": 8,
    "downsample_factor": 2,
    "min_image_tokens": 2,
    "max_image_tokens": 12,
    "tile_size": 32,
}
_LFM2 |= {"do_image_splitting": False}


_QWEN_MOE = {**_text_of("qwen3_moe"), "model_type": "qwen3_vl_moe_text", "rope_parameters": _QWEN_ROPE}
_QWEN_MOE.pop("rope_theta", None)


_CLIP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
_LLAVA = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def _llava(tokenizer: Any) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return transformers.LlavaProcessor(CLIPImageProcessorPil(**_CLIP), tokenizer, **_LLAVA)


_NEXT = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
_NEXT_GRIDS = [[32, 64], [64, 32], [64, 64], [32, 96]]
_NEXT_SIDE = {"height": 32, "width": 32}
_NEXT_IMAGE = {"size": {"shortest_edge": 32}, "crop_size": _NEXT_SIDE, "image_grid_pinpoints": _NEXT_GRIDS}
# the last pixels of a block fill no patch
_GRANITE_GRIDS = [[36, 72], [72, 36], [72, 72], [36, 108]]
_GRANITE_SIDE = {"height": 36, "width": 36}
_GRANITE_IMAGE = {"size": _GRANITE_SIDE, "crop_size": _GRANITE_SIDE, "image_grid_pinpoints": _GRANITE_GRIDS}
_GRANITE = {"patch_size": 8, "vision_feature_select_strategy": "full"}


def _llava_next(image: Mapping[str, Any], whole: Mapping[str, Any]) -> Callable[[Any], Any]:
    def made(tokenizer: Any) -> Any:
        from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

        return transformers.LlavaNextProcessor(LlavaNextImageProcessorPil(**image), tokenizer, **whole)

    return made


_ONEVISION_GRIDS = [[36 * high, 36 * wide] for high in (1, 2, 3) for wide in (1, 2, 3)]
_ONEVISION_IMAGE = {"size": _GRANITE_SIDE, "image_grid_pinpoints": _ONEVISION_GRIDS}
_ONEVISION = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"}


_QWEN3_5_TEXT = _text_of("qwen3_5_text")
_DEEP = {**_QWEN, "depth": 3, "deepstack_visual_indexes": [0, 1]}


def _seen(vision: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    """A tower whose rows are as wide as a text part."""
    return {**vision, "out_hidden_size": text["hidden_size"]}


def _qwen(name: str, text_type: str, text: Mapping[str, Any], vision: Mapping[str, Any]) -> Family:
    """Args: name: what its class begins with."""
    return Family(
        f"{name}ForConditionalGeneration",
        ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"),
        "<|vision_start|><|image_pad|><|vision_end|>",
        lambda ids: {
            "text_config": {**text, "model_type": text_type, "vocab_size": len(ids)},
            "vision_config": vision,
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|vision_start|>"],
            "vision_end_token_id": ids["<|vision_end|>"],
        },
        {"preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, **_QWEN_SIZES}},
        inputs=sight_inputs.of_qwen,
    )


# of 16 channels of a head 16 turn, or 8, pairs side by side or half a head apart
_GLM_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
_GLM_HALF = {**_GLM_ROPE, "partial_rotary_factor": 0.5}
_GLM4V_TEXT = {**_QWEN2_TEXT, "hidden_size": 64, "rope_parameters": _GLM_HALF}
_GLM4V_MOE = {**_text_of("glm4_moe"), "rope_parameters": _GLM_HALF}
_GLM4V_MOE = {key: value for key, value in _GLM4V_MOE.items() if key not in ("rope_theta", "use_qk_norm")}
_GLM_OCR_TEXT = {**_QWEN2_TEXT, "head_dim": 16, "rope_parameters": {**_GLM_ROPE, "mrope_section": [2, 3, 3]}}
_GLM4V = {**_QWEN2, "image_size": 32}


def _glm(name: str, text_type: str, text: Mapping[str, Any]) -> Family:
    """Args: name: what its class begins with."""
    return Family(
        f"{name}ForConditionalGeneration",
        ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>"),
        "<|begin_of_image|><|image|><|end_of_image|>",
        lambda ids: {
            "text_config": {**text, "model_type": text_type, "vocab_size": len(ids)},
            "vision_config": _seen(_GLM4V, text),
            "image_token_id": ids["<|image|>"],
            "video_token_id": ids["<|video|>"],
            "image_start_token_id": ids["<|begin_of_image|>"],
            "image_end_token_id": ids["<|end_of_image|>"],
            "video_start_token_id": ids["<|begin_of_video|>"],
            "video_end_token_id": ids["<|end_of_video|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Glm4vImageProcessor",
                "patch_size": 8,
                # of two frames
                "size": {"shortest_edge": 512, "longest_edge": 8192},
            }
        },
        inputs=sight_inputs.of_glm,
    )


_GEMMA4 = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 8,
    "pooling_kernel_size": 2,
    "position_embedding_size": 12,
}
#: Layers with a window, and each kind twice, of which the last read what the first wrote.
_GEMMA4_SHARING = {**VARIANTS["gemma4_text, embeddings of layers"], "sliding_window": 16}
_GEMMA4_AUDIO = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "subsampling_conv_channels": [4, 2],
    "output_proj_dims": 16,
}


def _gemma4(text: Mapping[str, Any], vision: Mapping[str, Any], audio: Mapping[str, Any] | None = None) -> Family:
    """Of sounds or of videos."""
    beside = ("<|audio|>", "<|audio>", "<audio|>") if audio else ("<|video|>",)

    def config(ids: Mapping[str, int]) -> dict[str, Any]:
        sizes = {"vocab_size": len(ids), "vocab_size_per_layer_input": len(ids)}
        return {
            "text_config": {**_text_of("gemma4_text", **text), **sizes},
            "vision_config": {**_GEMMA4, **vision},
            "audio_config": audio,
            "image_token_id": ids["<|image|>"],
            "boi_token_id": ids["<|image>"],
            "eoi_token_id": ids["<image|>"],
            "video_token_id": ids.get("<|video|>", 1 << 20),
        }

    of_pictures = {"image_processor_type": "Gemma4ImageProcessor", "max_soft_tokens": 6, "image_seq_length": 280}
    of_pictures |= {"do_normalize": False, "patch_size": 8, "pooling_kernel_size": 2}
    of_frames = {"video_processor_type": "Gemma4VideoProcessor", "max_soft_tokens": 6, "num_frames": 3}
    of_frames |= {"patch_size": 8, "pooling_kernel_size": 2}
    of_sounds = {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "feature_size": 4}
    return Family(
        "Gemma4ForConditionalGeneration",
        ("<|image>", "<|image|>", "<image|>", *beside),
        "<|image|>",
        config,
        {
            "processor_config.json": {
                "processor_class": "Gemma4Processor",
                "image_processor": of_pictures,
                "feature_extractor": of_sounds,
                "video_processor": of_frames,
                "audio_ms_per_token": 40,
                "audio_seq_length": 750,
                "image_seq_length": 280,
            }
        },
        inputs=sight_inputs.of_gemma4,
    )


def _gemma4_unified() -> Family:
    """As 12B, whose pictures no tower sees."""
    of_gemma4 = _gemma4({}, {})
    file = of_gemma4.files["processor_config.json"]
    of_pictures = {**file["image_processor"], "image_processor_type": "Gemma4UnifiedImageProcessor"}
    of_frames = {**file["video_processor"], "video_processor_type": "Gemma4UnifiedVideoProcessor"}
    return replace(
        of_gemma4,
        class_name="Gemma4UnifiedForConditionalGeneration",
        config=lambda ids: {
            **of_gemma4.config(ids),
            "text_config": {**_text_of("gemma4_unified_text", sliding_window=3), "vocab_size": len(ids)},
            "vision_config": {"patch_size": 8, "pooling_kernel_size": 2, **_OF_UNIFIED},
            "audio_config": {"audio_embed_dim": 20},
        },
        files={"processor_config.json": {**file, "image_processor": of_pictures, "video_processor": of_frames}},
        inputs=sight_inputs.of_gemma4_unified,
        # its masks are Gemma 4's where caches are made at once, else those of Gemma 3
        asked={"cache_implementation": "static"},
    )


_OF_UNIFIED = {"mm_embed_dim": 32, "output_proj_dims": 32, "mm_posemb_size": 6}
FAMILIES: dict[str, Family] = {
    **OF_DOCUMENTS,
    **OF_SHEETS,
    **OF_SQUARES,
    **OF_TILES,
    "idefics3": Family(
        "Idefics3ForConditionalGeneration",
        ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *_LINES),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": _SIGLIP,
            "scale_factor": 2,
            "image_token_id": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "Idefics3ImageProcessor", **_SMOL},
            "processor_config.json": {"processor_class": "Idefics3Processor", "image_seq_len": 4},
        },
        _smolvlm,
    ),
    "smolvlm": Family(
        "SmolVLMForConditionalGeneration",
        ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *_LINES),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": _SIGLIP,
            "scale_factor": 2,
            "image_token_id": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "SmolVLMImageProcessor", **_SMOL, **_SMOL_VIDEO},
            "processor_config.json": {"processor_class": "SmolVLMProcessor", "image_seq_len": 4},
        },
        inputs=sight_inputs.of_idefics3,
    ),
    "lighton_ocr": Family(
        "LightOnOcrForConditionalGeneration",
        ("<|image_pad|>", "<|vision_pad|>", "<|vision_end|>"),
        "<|image_pad|>",
        lambda ids: {
            "text_config": {**_text_of("qwen3"), "vocab_size": len(ids)},
            "vision_config": {**_PIXTRAL, "image_size": 96},
            "image_token_id": ids["<|image_pad|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "PixtralImageProcessor",
                "size": {"longest_edge": 96},
                "patch_size": {"height": 16, "width": 16},
            },
            "processor_config.json": {"processor_class": "LightOnOcrProcessor", "patch_size": 8},
        },
        inputs=sight_inputs.of_mistral3,
    ),
    "llava": Family(
        "LlavaForConditionalGeneration",
        ("<image>",),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": {**_SIGLIP, "model_type": "clip_vision_model", "num_hidden_layers": 3},
            "image_token_index": ids["<image>"],
            "image_seq_length": 16,
        },
        {
            "preprocessor_config.json": {"image_processor_type": "CLIPImageProcessor", **_CLIP},
            "processor_config.json": {"processor_class": "LlavaProcessor", **_LLAVA},
        },
        _llava,
    ),
    "llava, pixtral": Family(
        "LlavaForConditionalGeneration",
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "[IMG]",
        lambda ids: {
            "text_config": {**_LLAMA, "model_type": "mistral", "vocab_size": len(ids)},
            "vision_config": {**_PIXTRAL, "image_size": 96},
            "vision_feature_layer": -1,
            "vision_feature_select_strategy": "full",
            "image_seq_length": 1,
            "image_token_index": ids["[IMG]"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 48}},
            "processor_config.json": {"patch_size": 8},
        },
        inputs=sight_inputs.of_mistral3,
    ),
    "llava_next": Family(
        "LlavaNextForConditionalGeneration",
        ("<image>",),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": {**_SIGLIP, "model_type": "clip_vision_model", "num_hidden_layers": 3},
            "image_grid_pinpoints": _NEXT_GRIDS,
            "image_token_index": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "LlavaNextImageProcessor", **_NEXT_IMAGE},
            "processor_config.json": {"processor_class": "LlavaNextProcessor", **_NEXT},
        },
        _llava_next(_NEXT_IMAGE, _NEXT),
    ),
    "llava_next, granite": Family(
        "LlavaNextForConditionalGeneration",
        ("<image>",),
        "<image>",
        lambda ids: {
            "text_config": {**_text_of("granite"), "vocab_size": len(ids)},
            "vision_config": {**_SIGLIP, "model_type": "siglip_vision_model", "image_size": 36},
            "vision_feature_layer": [-2, 1, -1],
            "vision_feature_select_strategy": "full",
            "image_grid_pinpoints": _GRANITE_GRIDS,
            "image_token_index": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "LlavaNextImageProcessor", **_GRANITE_IMAGE},
            "processor_config.json": {"processor_class": "LlavaNextProcessor", **_GRANITE},
        },
        _llava_next(_GRANITE_IMAGE, _GRANITE),
    ),
    "llava_onevision": Family(
        "LlavaOnevisionForConditionalGeneration",
        ("<image>", "<video>"),
        "<image>",
        lambda ids: {
            "text_config": {**_LLAMA, "model_type": "qwen2", "vocab_size": len(ids)},
            "vision_config": {**_SIGLIP, "model_type": "siglip_vision_model", "image_size": 36},
            "image_grid_pinpoints": _ONEVISION_GRIDS,
            "vision_aspect_ratio": "anyres_max_2",
            "image_token_index": ids["<image>"],
            "video_token_index": ids["<video>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "LlavaOnevisionImageProcessor", **_ONEVISION_IMAGE},
            "processor_config.json": {"processor_class": "LlavaOnevisionProcessor", **_ONEVISION},
        },
        inputs=sight_inputs.of_llava_onevision,
    ),
    "mistral3": Family(
        "Mistral3ForConditionalGeneration",
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "[IMG]",
        lambda ids: {
            "text_config": {**_LLAMA, "model_type": "mistral", "vocab_size": len(ids)},
            "vision_config": {**_PIXTRAL, "image_size": 96},
            "spatial_merge_size": 2,
            "image_token_index": ids["[IMG]"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 96}},
            "processor_config.json": {"patch_size": 8, "spatial_merge_size": 2},
        },
        inputs=sight_inputs.of_mistral3,
    ),
    "mistral_large4": Family(
        "MistralLarge4ForConditionalGeneration",
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        "[IMG]",
        lambda ids: {
            "text_config": {**_text_of("mistral_large4_text"), "vocab_size": len(ids)},
            "vision_config": {**_PIXTRAL, "image_size": 96},
            "spatial_merge_size": 2,
            "image_token_index": ids["[IMG]"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "PixtralImageProcessor", "size": {"longest_edge": 96}},
            "processor_config.json": {"patch_size": 8, "spatial_merge_size": 2},
        },
        inputs=sight_inputs.of_mistral3,
    ),
    "glm4v": _glm("Glm4v", "glm4v_text", _GLM4V_TEXT),
    "glm4v_moe": _glm("Glm4vMoe", "glm4v_moe_text", _GLM4V_MOE),
    "glm_ocr": _glm("GlmOcr", "glm_ocr_text", _GLM_OCR_TEXT),
    "paddleocr_vl": Family(
        "PaddleOCRVLForConditionalGeneration",
        ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>", "<|video_pad|>"),
        "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        lambda ids: {
            "text_config": {**_QWEN2_TEXT, "model_type": "paddleocr_vl_text", "head_dim": 12, "vocab_size": len(ids)},
            "vision_config": _SIGLIP,
            "image_token_id": ids["<|IMAGE_PLACEHOLDER|>"],
            "video_token_id": ids["<|video_pad|>"],
            "vision_start_token_id": ids["<|IMAGE_START|>"],
            "vision_end_token_id": ids["<|IMAGE_END|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "PaddleOCRVLImageProcessor",
                "patch_size": 8,
                "min_pixels": 256,
                "max_pixels": 4096,
            }
        },
        inputs=sight_inputs.of_paddleocr_vl,
    ),
    "exaone4_5": replace(
        _qwen(
            "Exaone4_5_",
            "exaone4",
            _text_of("exaone4"),
            _seen({**_QWEN2_5, "num_key_value_heads": 1}, _text_of("exaone4")),
        ),
        inputs=sight_inputs.of_exaone4_5,
    ),
    "hyperclovax_vision_v2": Family(
        "HyperCLOVAXVisionV2ForConditionalGeneration",
        ("<|image_start|>", "<|IMAGE_PAD|>", "<|image_end|>", "<|VIDEO_PAD|>"),
        "<|image_start|><|IMAGE_PAD|><|image_end|>",
        lambda ids: {
            "text_config": {**_text_of("hyperclovax"), "vocab_size": len(ids)},
            "vision_config": {**_QWEN2_5, "model_type": "qwen2_5_vl_vision", "out_hidden_size": 40},
            "image_token_id": ids["<|IMAGE_PAD|>"],
            "video_token_id": ids["<|VIDEO_PAD|>"],
        },
        {"preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 8, **_QWEN_SIZES}},
        inputs=lambda prompt, ids, tiles: sight_inputs.of_exaone4_5(
            prompt, {"<|image_pad|>": ids["<|IMAGE_PAD|>"]}, tiles
        ),
    ),
    "qwen2_5_vl": _qwen("Qwen2_5_VL", "qwen2_5_vl_text", _QWEN2_TEXT, _QWEN2_5),
    "qwen2_vl": _qwen(
        "Qwen2VL", "qwen2_vl_text", _QWEN2_TEXT, {**_QWEN2_VL, "embed_dim": 32, "hidden_size": 48, "mlp_ratio": 2}
    ),
    "qwen3_5": _qwen("Qwen3_5", "qwen3_5_text", _QWEN3_5_TEXT, _seen(_QWEN, _QWEN3_5_TEXT)),
    "qwen3_vl": _qwen("Qwen3VL", "qwen3_vl_text", _QWEN_TEXT, _seen(_DEEP, _QWEN_TEXT)),
    "qwen3_vl_moe": _qwen("Qwen3VLMoe", "qwen3_vl_moe_text", _QWEN_MOE, _seen(_DEEP, _QWEN_MOE)),
    "gemma3": Family(
        "Gemma3ForConditionalGeneration",
        ("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
        "<start_of_image>",
        lambda ids: {
            "text_config": {**_text_of("gemma3_text"), "vocab_size": len(ids), "sliding_window": 16},
            "vision_config": _SIGLIP,
            "mm_tokens_per_image": 4,
            "image_token_index": ids["<image_soft_token>"],
            "boi_token_index": ids["<start_of_image>"],
            "eoi_token_index": ids["<end_of_image>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Gemma3ImageProcessor",
                "size": {"height": 32, "width": 32},
            },
            "processor_config.json": {"image_seq_length": 4},
        },
        inputs=sight_inputs.of_gemma3,
    ),
    # as 26B-A4B and 31B, whose tokens of an image see each other in layers with a window
    "gemma4": _gemma4({"sliding_window": 4, "use_bidirectional_attention": "vision"}, {"standardize": True}),
    # as E2B and E4B
    "gemma4, embeddings of layers": _gemma4(_GEMMA4_SHARING, {"use_clipped_linears": True}, _GEMMA4_AUDIO),
    "gemma4_unified": _gemma4_unified(),
    "internvl": Family(
        "InternVLForConditionalGeneration",
        ("<IMG_CONTEXT>", "<img>", "</img>"),
        "<IMG_CONTEXT>\n",
        lambda ids: {
            "text_config": {**_LLAMA, "vocab_size": len(ids)},
            "vision_config": _INTERNVL,
            "image_token_id": ids["<IMG_CONTEXT>"],
            "image_seq_length": 4,
        },
        {
            "preprocessor_config.json": {"image_processor_type": "GotOcr2ImageProcessorFast", **_GOT},
            "processor_config.json": {"processor_class": "InternVLProcessor", "image_seq_length": 4},
        },
        inputs=sight_inputs.of_internvl,
    ),
    "lfm2_vl": Family(
        "Lfm2VlForConditionalGeneration",
        ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"),
        "<image>",
        lambda ids: {
            "text_config": {**_text_of("lfm2"), "vocab_size": len(ids)},
            "vision_config": {key: value for key, value in _SIGLIP.items() if key != "image_size"}
            | {"num_patches": 16},
            "projector_hidden_size": 40,
            "image_token_id": ids["<image>"],
        },
        {"preprocessor_config.json": {"image_processor_type": "Lfm2VlImageProcessor", **_LFM2}},
        inputs=sight_inputs.of_lfm2_vl,
    ),
}


@made_once
def save(folder: Path, name: str, seed: int = 0) -> Path:
    """A model of that family, whose every weight is drawn so that pictures are seen in what it answers."""
    return save_family(folder, name, FAMILIES[name], seed)


def save_family(folder: Path, name: str, family: Family, seed: int = 0) -> Path:
    """The same of any family. Args: name: its model_type, and what may follow behind a comma."""
    ids = save_tokenizer(folder, family.tokens, family.mark)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = transformers.AutoConfig.for_model(name.partition(",")[0], **family.config(ids))
    text = config.get_text_config()
    text.eos_token_id = config.eos_token_id = ids["<|im_end|>"]
    text.bos_token_id = text.pad_token_id = ids["<|im_start|>"]
    model = getattr(transformers, family.class_name)(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim > 1:
                scale = 1.0 if "position" in key else weight[0].numel() ** -0.5
                if "embed_tokens." in key:
                    # Gemma's are multiplied, and are its head, too: larger ones would say nothing but themselves
                    scale = 0.05 if name.startswith("gemma") else 1.0
                weight.normal_(0.0, 1.5 * scale)
            else:
                weight.normal_(1.0 if "norm" in key.lower() and key.endswith("weight") else 0.0, 0.2)
        for key, number in model.named_buffers():
            if "vision_tower" in key and key.rpartition(".")[2] in BUFFERS:
                number.normal_(BUFFERS[key.rpartition(".")[2]], 0.2)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for file, content in family.files.items():
        (folder / file).write_text(json.dumps(content))
    return folder


def save_tokenizer(folder: Path, tokens: tuple[str, ...], mark: str) -> dict[str, int]:
    """A token a byte, and others, special ones; and a template, which writes the mark for a picture. Returns: token ->
    id, of all."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>", *tokens)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "chat_template.jinja").write_text(_TURNS.replace("IMAGE", mark))
    return dict(backend.get_vocab(with_added_tokens=True))


def picture(width: int, height: int, seed: int = 0) -> Any:
    """Noise on a gradient."""
    numbers = np.random.default_rng(seed * 7919 + width)
    slope = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 64, width))[..., None]
    return Image.fromarray((slope + numbers.integers(0, 64, (height, width, 3))).astype(np.uint8))


class Theirs:
    """What transformers makes of a saved model."""

    def __init__(self, folder: Path, name: str) -> None:
        self.family, self._folder = FAMILIES[name], folder
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._ids = tokenizer.get_vocab()
        self.processor = None
        if self.family.processor is not None:
            self.processor = self.family.processor(tokenizer)
            self.processor.chat_template = (folder / "chat_template.jinja").read_text()
        kind = getattr(transformers, self.family.class_name)
        self.model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.model.generation_config.eos_token_id = None
        if self.family.mended is not None:
            self.family.mended(self.model)

    def inputs(self, messages: list[dict[str, Any]], prompt: list[int]) -> Any:
        """What the model is given of a chat whose parts are texts and pictures. Args: prompt: its ids, where they are
        not the processor's."""
        parts = [part for message in messages for part in message["content"]]
        pictures = [part["image"] for part in parts if part["type"] == "image"]
        if self.processor is not None:
            text = self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            return self.processor(text=text, images=pictures or None, return_tensors="pt", add_special_tokens=False)
        assert self.family.inputs is not None
        mine = open_processor(self._folder, json.loads((self._folder / "config.json").read_text()))
        tiles = [mine.normalized(tile) for image in pictures for tile in mine.prepare(image).tiles]
        more = self.family.inputs(prompt, self._ids, tiles) if tiles else {}
        return {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt)), **more}

    def answer(
        self, messages: list[dict[str, Any]], num_tokens: int, prompt: list[int]
    ) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, those of the greedy answer, and their log-probabilities."""
        inputs = self.inputs(messages, prompt)
        with torch.no_grad():
            found = self.model.generate(
                **inputs,
                **self.family.asked,
                max_new_tokens=num_tokens,
                do_sample=False,
                output_logits=True,
                return_dict_in_generate=True,
            )
        ids = inputs["input_ids"][0].tolist()
        output = found.sequences[0, len(ids) :].tolist()
        values = [torch.log_softmax(row[0], -1)[token].item() for row, token in zip(found.logits, output, strict=True)]
        return ids, output, values
