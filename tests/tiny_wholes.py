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


_SIGHT = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
_SIGHT |= {"image_size": 28, "patch_size": 7}
_CLIP = {**_SIGHT, "model_type": "clip_vision_model"}
_SIGLIP = {**_SIGHT, "model_type": "siglip_vision_model"}
_SAM = {"hidden_size": 16, "mlp_dim": 24, "num_attention_heads": 2, "num_hidden_layers": 2, "image_size": 32}
_SAM |= {"patch_size": 8, "output_channels": 8, "window_size": 3, "global_attn_indexes": [1]}
_INTERNVL = {**_SIGHT, "model_type": "internvl_vision"}
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


def _whole(of_text: str | dict[str, Any], vision: dict[str, Any], ties: bool, **beside: Any) -> dict[str, Any]:
    """Args: of_text: keys of the text part, or which tiny one it is."""
    of_text = text(of_text, of_text) if isinstance(of_text, str) else of_text
    return {"text_config": of_text, "vision_config": vision, "tie_word_embeddings": ties, **beside}


#: The model_type of the whole, and its config.
WHOLES: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": _whole(text("qwen2", "qwen2_5_vl_text", rope_parameters=CHUNKS, rope_theta=...), _QWEN2_5, ties=True),
    "qwen2_vl": _whole(text("qwen2", "qwen2_vl_text", rope_parameters=CHUNKS, rope_theta=...), _QWEN2, ties=False),
    "qwen3_vl": _whole(text("qwen3", "qwen3_vl_text", rope_parameters=_PLACES, rope_theta=...), _QWEN, ties=True),
    "qwen3_vl_moe": _whole(
        text("qwen3_moe", "qwen3_vl_moe_text", rope_parameters=_PLACES, rope_theta=...), _QWEN, ties=False
    ),
    # text alone: their towers are left where they lie
    "cohere_compass": _whole("cohere_compass_text", {**_QWEN, "out_hidden_size": 48}, ties=True),
    "hyperclovax_vision_v2": _whole("hyperclovax", {**_QWEN2_5, "model_type": "qwen2_5_vl_vision"}, ties=False),
    "lfm3_vl": _whole(
        "lfm3",
        {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
        | {"num_hidden_layers": 1, "num_key_value_heads": 1, "layer_types": ["conv"]},
        ties=True,
    ),
    "step3p7": _whole(
        "step3p5",
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2.0}
        | {"image_size": 28, "max_position_embeddings": 4},
        ties=False,
    ),
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
    "paddleocr_vl": _whole(
        text("ernie4_5", "paddleocr_vl_text", rope_parameters={**_WHOLLY, "mrope_section": [2, 2, 2]}, rope_theta=...),
        {**_SIGHT, "model_type": "paddleocr_vl_vision", "num_attention_heads": 2},
        ties=True,
    ),
    "gemma4": {"text_config": text("gemma4_text", "gemma4_text"), **_GEMMA4},
    "gemma4_unified": _whole(
        "gemma4_unified_text",
        {"patch_size": 4, "mm_embed_dim": 16, "mm_posemb_size": 6, "output_proj_dims": 16},
        ties=True,
        audio_config={"audio_embed_dim": 20},
    ),
    "gemma4 with experts": {
        "text_config": text("gemma4_text", "gemma4_text", **VARIANTS["gemma4_text, experts"]),
        **_GEMMA4,
    },
    "gemma4 with embeddings of layers": {
        "text_config": text("gemma4_text", "gemma4_text", **VARIANTS["gemma4_text, embeddings of layers"]),
        **_GEMMA4,
    },
    "qwen3_5": _whole(
        text("qwen3_5_text", "qwen3_5_text", rope_parameters=_PLACES | {"partial_rotary_factor": 0.5}),
        {**_QWEN, "out_hidden_size": 40},
        ties=False,
    ),
    "qwen3_5_moe": _whole("qwen3_5_moe_text", {**_QWEN, "out_hidden_size": 36}, ties=False),
    "qwen4_exp": _whole("qwen4_exp_text", {**_QWEN, "out_hidden_size": 36}, ties=False),
    "glm5_next": _whole(
        "glm5_next_text", {**_GLM, "out_hidden_size": 40, "projection_intermediate_size": 24}, ties=False
    ),
    "mistral3": _whole("mistral", _PIXTRAL, ties=False),
    "lighton_ocr": _whole("qwen3", _PIXTRAL, ties=True),
    "llava": _whole("llama", _CLIP, ties=False),
    "video_llama_3": _whole("qwen2", {**_SIGHT, "model_type": "video_llama_3_vision"}, ties=False),
    "vipllava": _whole("llama", _CLIP, ties=False, vision_feature_layer=[1]),
    "llava_next": _whole("mistral", _CLIP, ties=False),
    "llava_next of granite": _whole("granite", _SIGLIP, ties=False),
    "aya_vision": _whole(text("cohere2", "cohere2", logit_scale=1.0), _SIGLIP, ties=True),
    "aya_vision of cohere": _whole(text("cohere", "cohere", logit_scale=1.0), _SIGLIP, ties=True),
    "exaone4_5": _whole(
        "exaone4",
        {**_QWEN2_5, "num_key_value_heads": 1, "out_hidden_size": text("exaone4", "")["hidden_size"]},
        ties=False,
    ),
    "minicpm_ocr": _whole(
        "qwen3_5_text",
        {**_SIGHT, "model_type": "minicpm_ocr_vision", "num_hidden_layers": 3},
        ties=True,
        insert_layer_id=0,
    ),
    "minicpmv4_6": _whole(
        text("qwen3_5_text", "qwen3_5_text", rope_parameters=_PLACES | {"partial_rotary_factor": 0.5}),
        {**_SIGHT, "model_type": "minicpmv4_6_vision", "num_hidden_layers": 3},
        ties=False,
        insert_layer_id=0,
    ),
    "paligemma": _whole(
        text("gemma", "gemma", use_bidirectional_attention=True, num_image_tokens=16),
        _SIGLIP,
        ties=True,
        projection_dim=40,
    ),
    "paligemma of gemma2": _whole("gemma2", _SIGLIP, ties=True, projection_dim=48),
    "cohere2_vision": _whole(
        text("cohere2", "cohere2", logit_scale=1.0), _SIGLIP, ties=True, alignment_intermediate_size=40
    ),
    "llava_onevision": _whole("qwen2", _SIGLIP, ties=True),
    "llava_next of qwen2": _whole("qwen2", _CLIP, ties=True),
    "llava of mistral": _whole("mistral", _CLIP, ties=False),
    "llava of pixtral": _whole(text("mistral", "mistral", is_composition=True), _PIXTRAL, ties=False),
    "internvl": _whole("qwen2", _INTERNVL, ties=False),
    "pp_chart2table": _whole("qwen2", _SAM, ties=True),
    "ovis2": _whole(
        "qwen2",
        {**_SIGHT, "model_type": "ovis2_vision", "vocab_size": 21},
        ties=True,
        hidden_size=text("qwen2", "qwen2")["hidden_size"],
    ),
    "got_ocr2": _whole("qwen2", _SAM, ties=True),
    "hunyuan_vl": _whole(
        text(
            "hunyuan_v1_dense",
            "hunyuan_vl_text",
            rope_parameters={
                **{"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 50.0, "factor": 1.0},
                "mrope_section": [2, 1, 3, 2],
            },
        ),
        {
            **{key: value for key, value in _SIGHT.items() if key != "image_size"},
            "max_image_size": 28,
        },
        ties=True,
    ),
    "nemotron_h_omni": _whole(
        "nemotron_h",
        {
            **{"model_type": "radio", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1},
            **{"patch_size": 7, "max_img_size": 28, "video_temporal_patch_size": 2},
        },
        ties=False,
        vision_hidden_size=16,
        projector_hidden_size=24,
        audio_config=None,
    ),
    "janus": _whole(
        "llama",
        {
            **{key: value for key, value in _SIGHT.items() if key != "intermediate_size"},
            **{"mlp_ratio": 1.5, "projection_dim": load_architecture("llama").tiny["hidden_size"]},
            "num_image_tokens": 16,
        },
        ties=False,
        vq_config={"base_channels": 32, "num_embeddings": 8, "projection_dim": 8, "latent_channels": 8},
    ),
    "deepseek_vl": _whole("llama", _SIGLIP, ties=False),
    "internvl of llama": _whole("llama", _INTERNVL, ties=True),
    "internvl of phi3": _whole("phi3", _INTERNVL, ties=False),
    "internvl of mistral": _whole("mistral", _INTERNVL, ties=False),
    "internvl of qwen3": _whole("qwen3", _INTERNVL, ties=False),
    "qianfan_ocr": _whole("qwen3", {**_SIGHT, "model_type": "qianfan_ocr_vision"}, ties=False),
    "internvl of qwen3_moe": _whole("qwen3_moe", _INTERNVL, ties=False),
    "internvl of gpt_oss": _whole("gpt_oss", _INTERNVL, ties=False),
    "idefics3": _whole("llama", _SIGHT, ties=False, scale_factor=2),
    "smolvlm": _whole("llama", _SIGHT, ties=True, scale_factor=2),
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
    "lfm2_vl": _whole("lfm2", {**_SIGHT, "model_type": "siglip2_vision_model", "num_patches": 16}, ties=True),
    "kimi_k25": _whole(
        "deepseek_v3",
        {
            **{key: value for key, value in _SIGHT.items() if key != "image_size"},
            **{"pos_emb_height": 4, "pos_emb_width": 4},
        },
        ties=False,
        projection_hidden_size=16,
    ),
    "llama4": _whole(
        "llama4_text", {**_SIGHT, "model_type": "llama4_vision_model", "vision_output_dim": 16}, ties=False
    ),
    "mistral_large4": _whole("mistral_large4_text", _PIXTRAL, ties=False),
    "mistral3 of mistral4": _whole("mistral4", _PIXTRAL, ties=False),
    "mistral3 of ministral3": _whole("ministral3", _PIXTRAL, ties=False),
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
