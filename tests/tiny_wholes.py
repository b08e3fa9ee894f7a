"""Tiny wholes: models with a text part, of random weights, as transformers makes and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from albireo.models import load_architecture
from variants import VARIANTS

_VISION = {"hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "depth": 1, "deepstack_visual_indexes": [0]}
_QWEN = _VISION | {"num_position_embeddings": 16, "out_hidden_size": 32}
_PIXTRAL = {"model_type": "pixtral", "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
_PIXTRAL |= {"num_hidden_layers": 1, "image_size": 28, "head_dim": 8}
#: Of rotation in three directions, of which text has one.
_PLACES = {"mrope_section": [4, 2, 2], "mrope_interleaved": True, "rope_type": "default", "rope_theta": 5e6}


def text(model_type: str, named: str, **changes: Any) -> dict[str, Any]:
    config = {**load_architecture(model_type).tiny, "model_type": named, "dtype": "float32", **changes}
    left_out = ("torch_dtype", "architectures", "rope_scaling")
    return {key: value for key, value in config.items() if key not in left_out and value is not ...}


_SIGLIP = {"vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "image_size": 28}}
_SIGLIP["vision_config"] |= {"num_hidden_layers": 1, "patch_size": 7}
_CLIP = {"vision_config": {**_SIGLIP["vision_config"], "model_type": "clip_vision_model"}}
_INTERNVL = {"vision_config": {**_SIGLIP["vision_config"], "model_type": "internvl_vision"}}
_SIGLIP2 = {"vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip2_vision_model", "num_patches": 16}}
_GEMMA4_VISION = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "head_dim": 8}
_GEMMA4_VISION |= {"num_hidden_layers": 1, "num_key_value_heads": 2}
_GEMMA4 = {"vision_config": _GEMMA4_VISION, "audio_config": None, "tie_word_embeddings": True}
_QWEN2 = {"hidden_size": 60, "embed_dim": 16, "mlp_ratio": 2, "num_heads": 2, "depth": 1}
_QWEN2_5 = {**_QWEN2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 60}
_QWEN2_5 = {key: value for key, value in _QWEN2_5.items() if key not in ("embed_dim", "mlp_ratio")}
#: Pairs of one direction side by side.
CHUNKS = {"mrope_section": [1, 1, 3], "rope_type": "default", "rope_theta": 5e6}
#: Of halves of heads of 16, of which the first 8 channels turn.
_HALF = {"mrope_section": [1, 1, 2], "rope_type": "default", "rope_theta": 5e3, "partial_rotary_factor": 0.5}
_WHOLLY = {"mrope_section": [2, 3, 3], "rope_type": "default", "rope_theta": 5e3}
_GLM = {"hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "depth": 1, "image_size": 28}


def _glm(architecture: str, named: str, rope: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A whole of GLM."""
    beside = {"rope_parameters": rope, "partial_rotary_factor": ..., "rope_theta": ..., "use_qk_norm": ...}
    of_text = text(architecture, named, **beside, **changes)
    vision = {**_GLM, "out_hidden_size": of_text["hidden_size"]}
    return {"text_config": of_text, "vision_config": vision, "tie_word_embeddings": False}


#: The model_type of the whole, and its config.
WHOLES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": text("qwen2", "qwen2_5_vl_text", rope_parameters=CHUNKS, rope_theta=...),
        "vision_config": _QWEN2_5,
        "tie_word_embeddings": True,
    },
    "qwen2_vl": {
        "text_config": text("qwen2", "qwen2_vl_text", rope_parameters=CHUNKS, rope_theta=...),
        "vision_config": _QWEN2,
        "tie_word_embeddings": False,
    },
    "qwen3_vl": {
        "text_config": text("qwen3", "qwen3_vl_text", rope_parameters=_PLACES, rope_theta=...),
        "vision_config": _QWEN,
        "tie_word_embeddings": True,
    },
    "qwen3_vl_moe": {
        "text_config": text("qwen3_moe", "qwen3_vl_moe_text", rope_parameters=_PLACES, rope_theta=...),
        "vision_config": _QWEN,
        "tie_word_embeddings": False,
    },
    # text alone: their towers are left where they lie
    "cohere_compass": {
        "text_config": text("cohere_compass_text", "cohere_compass_text"),
        "vision_config": {**_QWEN, "out_hidden_size": 48},
        "tie_word_embeddings": True,
    },
    "hyperclovax_vision_v2": {
        "text_config": text("hyperclovax", "hyperclovax"),
        "vision_config": {**_QWEN2_5, "model_type": "qwen2_5_vl_vision"},
        "tie_word_embeddings": False,
    },
    "lfm3_vl": {
        "text_config": text("lfm3", "lfm3"),
        "vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
        | {"num_hidden_layers": 1, "num_key_value_heads": 1, "layer_types": ["conv"]},
        "tie_word_embeddings": True,
    },
    "step3p7": {
        "text_config": text("step3p5", "step3p5"),
        "vision_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2.0}
        | {"image_size": 28, "max_position_embeddings": 4},
        "tie_word_embeddings": False,
    },
    # of which tokens of pictures have experts of another width
    "ernie4_5_vl_moe": {
        "text_config": text(
            "ernie4_5_moe",
            "ernie4_5_vl_moe_text",
            **{"rope_parameters": {**_WHOLLY, "mrope_section": [2, 2, 1]}, "rope_theta": ..., "head_dim": ...},
            **{"moe_intermediate_size": [28, 12], "moe_layer_end_index": 3},
        ),
        "vision_config": {"hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "depth": 1},
    },
    "glm46v": _glm("glm4", "glm4v_text", _HALF, hidden_size=64, head_dim=...),
    "glm4v": _glm("glm4", "glm4v_text", _WHOLLY, hidden_size=64, head_dim=...),
    "glm4v_moe": _glm("glm4_moe", "glm4v_moe_text", _HALF),
    "glm_ocr": _glm("glm4", "glm_ocr_text", _WHOLLY, attention_bias=False),
    "glm_ocr without head_dim": _glm(
        "glm4", "glm_ocr_text", _WHOLLY, attention_bias=False, hidden_size=64, head_dim=...
    ),
    "paddleocr_vl": {
        "text_config": text(
            "ernie4_5", "paddleocr_vl_text", rope_parameters={**_WHOLLY, "mrope_section": [2, 2, 2]}, rope_theta=...
        ),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "paddleocr_vl_vision", "num_attention_heads": 2},
        "tie_word_embeddings": True,
    },
    "gemma4": {"text_config": text("gemma4_text", "gemma4_text"), **_GEMMA4},
    "gemma4_unified": {
        "text_config": text("gemma4_unified_text", "gemma4_unified_text"),
        "vision_config": {"patch_size": 4, "mm_embed_dim": 16, "mm_posemb_size": 6, "output_proj_dims": 16},
        "audio_config": {"audio_embed_dim": 20},
        "tie_word_embeddings": True,
    },
    "gemma4 with experts": {
        "text_config": text("gemma4_text", "gemma4_text", **VARIANTS["gemma4_text, experts"]),
        **_GEMMA4,
    },
    "gemma4 with embeddings of layers": {
        "text_config": text("gemma4_text", "gemma4_text", **VARIANTS["gemma4_text, embeddings of layers"]),
        **_GEMMA4,
    },
    "qwen3_5": {
        "text_config": text("qwen3_5_text", "qwen3_5_text", rope_parameters=_PLACES | {"partial_rotary_factor": 0.5}),
        "vision_config": {**_QWEN, "out_hidden_size": 40},
        "tie_word_embeddings": False,
    },
    "qwen3_5_moe": {
        "text_config": text("qwen3_5_moe_text", "qwen3_5_moe_text"),
        "vision_config": {**_QWEN, "out_hidden_size": 36},
        "tie_word_embeddings": False,
    },
    "qwen4_exp": {
        "text_config": text("qwen4_exp_text", "qwen4_exp_text"),
        "vision_config": {**_QWEN, "out_hidden_size": 36},
        "tie_word_embeddings": False,
    },
    "glm5_next": {
        "text_config": text("glm5_next_text", "glm5_next_text"),
        "vision_config": {**_GLM, "out_hidden_size": 40, "projection_intermediate_size": 24},
        "tie_word_embeddings": False,
    },
    "mistral3": {
        "text_config": text("mistral", "mistral"),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": False,
    },
    "lighton_ocr": {
        "text_config": text("qwen3", "qwen3"),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": True,
    },
    "llava": {"text_config": text("llama", "llama"), **_CLIP, "tie_word_embeddings": False},
    "video_llama_3": {
        "text_config": text("qwen2", "qwen2"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "video_llama_3_vision"},
        "tie_word_embeddings": False,
    },
    "vipllava": {
        "text_config": text("llama", "llama"),
        **_CLIP,
        "vision_feature_layer": [1],
        "tie_word_embeddings": False,
    },
    "llava_next": {"text_config": text("mistral", "mistral"), **_CLIP, "tie_word_embeddings": False},
    "llava_next of granite": {
        "text_config": text("granite", "granite"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "tie_word_embeddings": False,
    },
    "aya_vision": {
        "text_config": text("cohere2", "cohere2", logit_scale=1.0),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "tie_word_embeddings": True,
    },
    "aya_vision of cohere": {
        "text_config": text("cohere", "cohere", logit_scale=1.0),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "tie_word_embeddings": True,
    },
    "exaone4_5": {
        "text_config": text("exaone4", "exaone4"),
        "vision_config": {**_QWEN2_5, "num_key_value_heads": 1, "out_hidden_size": text("exaone4", "")["hidden_size"]},
        "tie_word_embeddings": False,
    },
    "minicpm_ocr": {
        "text_config": text("qwen3_5_text", "qwen3_5_text"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "minicpm_ocr_vision", "num_hidden_layers": 3},
        "insert_layer_id": 0,
        "tie_word_embeddings": True,
    },
    "minicpmv4_6": {
        "text_config": text("qwen3_5_text", "qwen3_5_text", rope_parameters=_PLACES | {"partial_rotary_factor": 0.5}),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "minicpmv4_6_vision", "num_hidden_layers": 3},
        "insert_layer_id": 0,
        "tie_word_embeddings": False,
    },
    "paligemma": {
        "text_config": text("gemma", "gemma", use_bidirectional_attention=True, num_image_tokens=16),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "projection_dim": 40,
        "tie_word_embeddings": True,
    },
    "paligemma of gemma2": {
        "text_config": text("gemma2", "gemma2"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "projection_dim": 48,
        "tie_word_embeddings": True,
    },
    "cohere2_vision": {
        "text_config": text("cohere2", "cohere2", logit_scale=1.0),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "alignment_intermediate_size": 40,
        "tie_word_embeddings": True,
    },
    "llava_onevision": {
        "text_config": text("qwen2", "qwen2"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "tie_word_embeddings": True,
    },
    "llava_next of qwen2": {"text_config": text("qwen2", "qwen2"), **_CLIP, "tie_word_embeddings": True},
    "llava of mistral": {"text_config": text("mistral", "mistral"), **_CLIP, "tie_word_embeddings": False},
    "llava of pixtral": {
        "text_config": text("mistral", "mistral", is_composition=True),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": False,
    },
    "internvl": {"text_config": text("qwen2", "qwen2"), **_INTERNVL, "tie_word_embeddings": False},
    "pp_chart2table": {
        "text_config": text("qwen2", "qwen2"),
        "vision_config": {
            **{"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 32},
            **{"patch_size": 8, "output_channels": 8, "window_size": 3, "global_attn_indexes": [1]},
        },
        "tie_word_embeddings": True,
    },
    "ovis2": {
        "text_config": text("qwen2", "qwen2"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "ovis2_vision", "vocab_size": 21},
        "hidden_size": text("qwen2", "qwen2")["hidden_size"],
        "tie_word_embeddings": True,
    },
    "got_ocr2": {
        "text_config": text("qwen2", "qwen2"),
        "vision_config": {
            **{"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 32},
            **{"patch_size": 8, "output_channels": 8, "window_size": 3, "global_attn_indexes": [1]},
        },
        "tie_word_embeddings": True,
    },
    "hunyuan_vl": {
        "text_config": text(
            "hunyuan_v1_dense",
            "hunyuan_vl_text",
            rope_parameters={
                **{"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
                "mrope_section": [2, 1, 3, 2],
            },
        ),
        "vision_config": {
            **{key: value for key, value in _SIGLIP["vision_config"].items() if key != "image_size"},
            "max_image_size": 28,
        },
        "tie_word_embeddings": True,
    },
    "nemotron_h_omni": {
        "text_config": text("nemotron_h", "nemotron_h"),
        "vision_config": {
            **{"model_type": "radio", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1},
            **{"patch_size": 7, "max_img_size": 28, "video_temporal_patch_size": 2},
        },
        "vision_hidden_size": 16,
        "projector_hidden_size": 24,
        "audio_config": None,
        "tie_word_embeddings": False,
    },
    "janus": {
        "text_config": text("llama", "llama"),
        "vision_config": {
            **{key: value for key, value in _SIGLIP["vision_config"].items() if key != "intermediate_size"},
            **{"mlp_ratio": 1.5, "projection_dim": load_architecture("llama").tiny["hidden_size"]},
            "num_image_tokens": 16,
        },
        "vq_config": {"base_channels": 32, "num_embeddings": 8, "projection_dim": 8, "latent_channels": 8},
        "tie_word_embeddings": False,
    },
    "deepseek_vl": {
        "text_config": text("llama", "llama"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "siglip_vision_model"},
        "tie_word_embeddings": False,
    },
    "internvl of llama": {"text_config": text("llama", "llama"), **_INTERNVL, "tie_word_embeddings": True},
    "internvl of phi3": {"text_config": text("phi3", "phi3"), **_INTERNVL, "tie_word_embeddings": False},
    "internvl of mistral": {"text_config": text("mistral", "mistral"), **_INTERNVL, "tie_word_embeddings": False},
    "internvl of qwen3": {"text_config": text("qwen3", "qwen3"), **_INTERNVL, "tie_word_embeddings": False},
    "qianfan_ocr": {
        "text_config": text("qwen3", "qwen3"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "qianfan_ocr_vision"},
        "tie_word_embeddings": False,
    },
    "internvl of qwen3_moe": {"text_config": text("qwen3_moe", "qwen3_moe"), **_INTERNVL, "tie_word_embeddings": False},
    "internvl of gpt_oss": {"text_config": text("gpt_oss", "gpt_oss"), **_INTERNVL, "tie_word_embeddings": False},
    "idefics3": {"text_config": text("llama", "llama"), **_SIGLIP, "scale_factor": 2, "tie_word_embeddings": False},
    "smolvlm": {"text_config": text("llama", "llama"), **_SIGLIP, "scale_factor": 2, "tie_word_embeddings": True},
    "apertus1p5": {
        "text_config": text("apertus1p5_text", "apertus1p5_text"),
        "vision_config": {
            **{"codebook_size": 8, "embed_dim": 8, "latent_channels": 8, "base_channels": 32, "num_res_blocks": 1},
            **{"channel_multiplier": [1, 1], "attn_resolutions": []},
        },
        "audio_config": {
            **{"model_type": "wavtokenizer_encoder", "codebook_size": 12, "codebook_dim": 16, "hidden_size": 16},
            **{"num_filters": 2, "num_lstm_layers": 1, "upsampling_ratios": [2, 2]},
        },
        **{"image_token_id": 7, "audio_token_id": 9, "image_token_offset": 121, "audio_token_offset": 129},
    },
    "lfm2_vl": {"text_config": text("lfm2", "lfm2"), **_SIGLIP2, "tie_word_embeddings": True},
    "kimi_k25": {
        "text_config": text("deepseek_v3", "deepseek_v3"),
        "vision_config": {
            **{key: value for key, value in _SIGLIP["vision_config"].items() if key != "image_size"},
            **{"pos_emb_height": 4, "pos_emb_width": 4},
        },
        "projection_hidden_size": 16,
        "tie_word_embeddings": False,
    },
    "llama4": {
        "text_config": text("llama4_text", "llama4_text"),
        "vision_config": {**_SIGLIP["vision_config"], "model_type": "llama4_vision_model", "vision_output_dim": 16},
        "tie_word_embeddings": False,
    },
    "mistral_large4": {
        "text_config": text("mistral_large4_text", "mistral_large4_text"),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": False,
    },
    "mistral3 of mistral4": {
        "text_config": text("mistral4", "mistral4"),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": False,
    },
    "mistral3 of ministral3": {
        "text_config": text("ministral3", "ministral3"),
        "vision_config": _PIXTRAL,
        "tie_word_embeddings": False,
    },
}


def save(name: str, directory: Path) -> Any:
    """transformers' model of random weights, saved."""
    import torch

    from transformers_models import transformers

    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(name.split()[0], **WHOLES[name])
    model = transformers.AutoModelForImageTextToText.from_config(
        config, attn_implementation="eager", experts_implementation="eager"
    )
    for key, weight in model.named_parameters():
        if "visual" not in key and "vision" not in key:
            scale = 1.5 / weight.shape[-1] ** 0.5 if weight.ndim > 1 else 0.2
            noise = torch.randn(weight.shape) * (0.5 if "embed_tokens" in key else scale)
            weight.data = noise + (1 if weight.ndim == 1 and key.endswith("norm.weight") else 0)
    model.save_pretrained(directory)
    return model.eval()
