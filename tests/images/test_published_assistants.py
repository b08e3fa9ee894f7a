"""Keys that published files of further models that read pictures have: all are read, or change nothing.

Values are those of the files, of which no weights were at hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albireo.images.processor import open_processor
from albireo.models import load_config
from albireo.models.text_part import inner
from albireo.models.vision.tower import open_tower

#: What transformers once saved of each part.
_SAVED = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "dtype": "float32",
    "finetuning_task": None,
    "is_decoder": False,
    "pad_token_id": None,
    "prefix": None,
    "pruned_heads": {},
    "sep_token_id": None,
    "task_specific_params": None,
    "tf_legacy_loss": False,
    "tie_encoder_decoder": False,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "torchscript": False,
}
_LLAMA = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 5632,
    "max_position_embeddings": 16384,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "use_cache": True,
    "vocab_size": 102400,
}
_PIXELS = {"do_normalize": True, "do_rescale": True, "do_resize": True, "rescale_factor": 0.00392156862745098}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
}
_PADDED = {
    **_PIXELS,
    "background_color": [127, 127, 127],
    "do_convert_rgb": None,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "min_size": 14,
    "resample": 3,
    "size": {"height": 384, "width": 384},
}
_OVIS = {**_PIXELS, **_CLIP, "crop_to_patches": True, "do_convert_rgb": True, "max_patches": 12, "min_patches": 1}
_OVIS |= {"image_processor_type": "Ovis2ImageProcessor", "size": {"height": 448, "width": 448}}

#: config.json, preprocessor_config.json and processor_config.json.
PUBLISHED: dict[str, tuple[dict[str, Any], ...]] = {
    "Ovis2-1B": (
        {
            "architectures": ["Ovis2ForConditionalGeneration"],
            "dtype": "float32",
            "hidden_size": 896,
            "image_token_id": 151665,
            "initializer_range": 0.02,
            "model_type": "ovis2",
            "text_config": {
                **_SAVED,
                "architectures": ["Qwen2ForCausalLM"],
                "attention_dropout": 0.0,
                "bos_token_id": 151643,
                "eos_token_id": 151645,
                "hidden_act": "silu",
                "hidden_size": 896,
                "initializer_range": 0.02,
                "intermediate_size": 4864,
                "layer_types": ["full_attention"] * 24,
                "max_position_embeddings": 32768,
                "max_window_layers": 21,
                "model_type": "qwen2",
                "num_attention_heads": 14,
                "num_hidden_layers": 24,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-06,
                "rope_parameters": {"rope_theta": 1000000.0, "rope_type": "default"},
                "sliding_window": None,
                "use_cache": True,
                "use_sliding_window": False,
                "vocab_size": 151936,
            },
            "tie_word_embeddings": True,
            "transformers_version": "5.5.0.dev0",
            "vision_config": {
                **_SAVED,
                "attention_dropout": 0.0,
                "backbone_config": {"model_type": "aimv2", "hidden_size": 1024, "use_bias": False},
                "backbone_kwargs": {},
                "bos_token_id": None,
                "depths": None,
                "drop_cls_token": False,
                "eos_token_id": None,
                "hidden_act": "silu",
                "hidden_size": 1024,
                "hidden_stride": 2,
                "image_size": 448,
                "initializer_range": 0.02,
                "intermediate_size": 2816,
                "mlp_bias": False,
                "model_type": "",
                "num_attention_heads": 8,
                "num_channels": 3,
                "num_hidden_layers": 24,
                "num_visual_indicator_tokens": 5,
                "patch_size": 14,
                "qkv_bias": False,
                "rms_norm_eps": 1e-05,
                "tau": 1.0,
                "tokenize_function": "softmax",
                "use_indicators": False,
                "vocab_size": 65536,
            },
            "visual_indicator_token_ids": [151666, 151667, 151668, 151669, 151670],
            "vocab_size": 151936,
        },
        {**_OVIS, "processor_class": "Ovis2Processor"},
        {
            "image_processor": {**_OVIS, "use_covering_area_grid": True},
            "image_seq_length": 256,
            "image_token": "<IMG_ATOM>",
            "processor_class": "Ovis2Processor",
        },
    ),
    "Janus-Pro-1B": (
        {
            "architectures": ["JanusForConditionalGeneration"],
            "image_token_id": 100581,
            "model_type": "janus",
            "text_config": {
                **_LLAMA,
                "bos_token_id": 100000,
                "eos_token_id": 100001,
                "pad_token_id": 100002,
                "torch_dtype": "bfloat16",
            },
            "torch_dtype": "bfloat16",
            "transformers_version": "4.52.0.dev0",
            "vision_config": {
                "attention_bias": True,
                "attention_dropout": 0.0,
                "depth": 2,
                "hidden_act": "gelu",
                "hidden_dropout_rate": 0.0,
                "hidden_size": 1024,
                "image_size": 384,
                "initializer_range": 0.02,
                "layer_norm_eps": 1e-06,
                "mlp_ratio": 4.0,
                "model_type": "janus_vision_model",
                "num_attention_heads": 16,
                "num_channels": 3,
                "num_hidden_layers": 24,
                "num_image_tokens": 576,
                "patch_size": 16,
                "projection_dim": 2048,
                "projection_dropout": 0.0,
                "use_qk_norm": False,
            },
            "vq_config": {"base_channels": 128, "embed_dim": 8, "model_type": "janus_vqgan", "num_embeddings": 16384},
        },
        {**_PADDED, "image_processor_type": "JanusImageProcessor", "processor_class": "JanusProcessor"},
        {"processor_class": "JanusProcessor", "use_default_system_prompt": True},
    ),
    "DeepSeek-VL-1.3B": (
        {
            "architectures": ["DeepseekVLForConditionalGeneration"],
            "image_token_id": 100015,
            "model_type": "deepseek_vl",
            "text_config": _LLAMA,
            "torch_dtype": "float16",
            "transformers_version": "4.53.0.dev0",
            "vision_config": {
                "attention_dropout": 0.0,
                "hidden_act": "gelu",
                "hidden_size": 1024,
                "image_size": 384,
                "intermediate_size": 4096,
                "layer_norm_eps": 1e-06,
                "model_type": "siglip_vision_model",
                "num_attention_heads": 16,
                "num_channels": 3,
                "num_hidden_layers": 24,
                "patch_size": 16,
                "vision_use_head": False,
            },
        },
        {**_PADDED, "image_processor_type": "DeepseekVLImageProcessor", "processor_class": "DeepseekVLProcessor"},
        {"num_image_tokens": 576, "processor_class": "DeepseekVLProcessor"},
    ),
    # of the tower nothing is said
    "GOT-OCR 2.0": (
        {
            "architectures": ["GotOcr2ForConditionalGeneration"],
            "image_seq_length": 576,
            "image_token_index": 151859,
            "model_type": "got_ocr2",
            "text_config": {
                "hidden_size": 1024,
                "intermediate_size": 2816,
                "model_type": "qwen2",
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "num_key_value_heads": 16,
                "rope_theta": 1000000.0,
                "tie_word_embeddings": True,
                "torch_dtype": "bfloat16",
                "vocab_size": 151860,
            },
            "torch_dtype": "bfloat16",
            "transformers_version": "4.49.0.dev0",
            "vision_config": {"model_type": ""},
        },
        {
            **_PIXELS,
            **_CLIP,
            "do_convert_rgb": True,
            "image_processor_type": "GotOcr2ImageProcessor",
            "processor_class": "GotOcr2Processor",
            "size": {"height": 1024, "width": 1024},
        },
    ),
    "Qianfan-OCR": (
        {
            "architectures": ["QianfanOCRForConditionalGeneration"],
            "downsample_ratio": 0.5,
            "dynamic_image_size": True,
            "force_image_size": 448,
            "image_token_id": 151671,
            "max_dynamic_patch": 12,
            "min_dynamic_patch": 1,
            "model_type": "qianfan_ocr",
            "ps_version": "v2",
            "select_layer": -1,
            "template": "internvl2_5",
            "text_config": {
                "head_dim": 128,
                "hidden_size": 2560,
                "intermediate_size": 9728,
                "max_position_embeddings": 32768,
                "model_type": "qwen3",
                "num_attention_heads": 32,
                "num_hidden_layers": 36,
                "num_key_value_heads": 8,
                "rope_theta": 5000000,
                "sliding_window": None,
                "use_cache": False,
                "use_sliding_window": False,
                "vocab_size": 153678,
            },
            "torch_dtype": "bfloat16",
            "use_thumbnail": True,
            "vision_config": {
                "attention_dropout": 0.0,
                "drop_path_rate": 0.1,
                "dropout": 0.0,
                "hidden_act": "gelu",
                "hidden_size": 1024,
                "image_size": 448,
                "initializer_factor": 1.0,
                "intermediate_size": 4096,
                "layer_norm_eps": 1e-06,
                "model_type": "intern_vit_6b",
                "qk_normalization": False,
                "use_flash_attn": True,
                "norm_type": "layer_norm",
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "qkv_bias": True,
            },
        },
        {
            **_PIXELS,
            **_CLIP,
            "crop_to_patches": False,
            "image_processor_type": "GotOcr2ImageProcessor",
            "size": {"height": 448, "width": 448},
        },
        {"image_seq_length": 256, "processor_class": "QianfanOCRProcessor"},
    ),
    # of which layers states are is said by LLaVA's key, which says nothing here
    "ViP-LLaVA 7B": (
        {
            "architectures": ["VipLlavaForConditionalGeneration"],
            "ignore_index": -100,
            "image_token_index": 32000,
            "model_type": "vipllava",
            "pad_token_id": 32001,
            "projector_hidden_act": "gelu",
            "projector_layernorm": False,
            "text_config": {"max_position_embeddings": 4096, "model_type": "llama", "vocab_size": 32064},
            "torch_dtype": "float16",
            "vision_config": {
                "hidden_size": 1024,
                "image_size": 336,
                "intermediate_size": 4096,
                "model_type": "clip_vision_model",
                "num_attention_heads": 16,
                "num_hidden_layers": 24,
                "patch_size": 14,
                "projection_dim": 768,
                "vocab_size": 32000,
            },
            "vision_feature_layer": -2,
            "vision_feature_select_strategy": "default",
            "vocab_size": 32064,
        },
        {
            **_PIXELS,
            **_CLIP,
            "crop_size": {"height": 336, "width": 336},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "image_processor_type": "CLIPImageProcessor",
            "processor_class": "LlavaProcessor",
            "size": {"shortest_edge": 336},
        },
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 14,
            "processor_class": "LlavaProcessor",
            "vision_feature_select_strategy": "default",
        },
    ),
}
#: The text part's architecture and width of heads; patches and rows of the largest tile, numbers that the projector
#: reads of one.
WANTED = {
    "Ovis2-1B": ("qwen2", 64, 256, 259, 65536),
    "Janus-Pro-1B": ("llama", 128, 576, 576, 1024),
    "DeepSeek-VL-1.3B": ("llama", 128, 576, 576, 1024),
    "GOT-OCR 2.0": ("qwen2", 64, 1024, 256, 4608),
    "Qianfan-OCR": ("qwen3", 128, 1025, 256, 4096),
    "ViP-LLaVA 7B": ("llama", 128, 577, 576, 5120),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_keys(name: str, tmp_path: Path) -> None:
    files = ("config.json", "preprocessor_config.json", "processor_config.json")
    for file, held in zip(files, PUBLISHED[name], strict=False):
        (tmp_path / file).write_text(json.dumps(held))
    model, data = load_config(tmp_path), inner(PUBLISHED[name][0])
    tower, processor = open_tower(data, "bfloat16", "config.json"), open_processor(tmp_path, data)
    largest = processor.largest_tile()
    assert tower.rows(*largest) == processor.rows(*largest)
    (given,) = [node for node in tower.projector().nodes if node.op == "given"]
    read = given.attrs["width"]
    found = model.model_type, model.head_dim, tower.patches(*largest), tower.rows(*largest), read
    assert found == WANTED[name]
