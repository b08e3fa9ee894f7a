"""A tiny DeepSeek-OCR of random weights as its authors publish it. transformers has it as Unlimited OCR, whose layers
see windows behind a prompt where these see all; it writes tensors by the names they were published by.

Used by tests/models/vision/test_published_towers.py and tests/e2e/test_published_sights.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: Pixels on a side of the whole, and of a part.
SIDE, PART = 256, 160
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 4096,
}
_SAM = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "downsample_channels": [40, 64]}
_SAM |= {"patch_size": 8, "window_size": 5, "global_attn_indexes": [1], "mlp_dim": 64, "output_channels": 24}
_CLIP = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 8}
_NAMES = {"hidden_size": "width", "num_hidden_layers": "layers", "num_attention_heads": "heads"}
#: As its authors have it of latent attention, which there is none of.
_LATENT = {"use_mla": False, "kv_lora_rank": None, "q_lora_rank": None, "v_head_dim": 0}
_LATENT |= {"qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "lm_head": True, "rm_head": False, "topk_method": "greedy"}
PROCESSOR = {
    "add_special_token": False,
    "candidate_resolutions": [[SIDE, SIDE]],
    "downsample_ratio": 4,
    "ignore_id": -100,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_token": "<image>",
    "mask_prompt": False,
    "normalize": True,
    "pad_token": "<pad>",
    "patch_size": 8,
    "processor_class": "DeepseekVLV2Processor",
    "sft_format": "deepseek",
}


def save(folder: Path, vocab_size: int, clip_side: int = 64) -> tuple[dict[str, Any], Any]:
    """Args: clip_side: of pictures that CLIP's table is for. Returns: what config.json holds; transformers' model."""
    torch.manual_seed(0)
    transformers.logging.disable_progress_bar()
    clip = {**_CLIP, "image_size": clip_side}
    text = {**_TEXT, "vocab_size": vocab_size}
    config = transformers.UnlimitedOcrConfig(
        vision_config={
            "sam_config": {**_SAM, "image_size": SIDE},
            "encoder_config": {**clip, "intermediate_size": 4 * clip["hidden_size"]},
        },
        text_config={**text, "layer_types": ["full_attention"] * text["num_hidden_layers"]},
    )
    model = transformers.UnlimitedOcrForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                scale = 0.4 if "pos" in name else 1.0 if "embed_tokens" in name else weight[0].numel() ** -0.5
                weight.normal_(0.0, 1.3 * scale)
            else:
                weight.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
    model.save_pretrained(folder)
    of_text = {**text, **_LATENT}
    data = {
        **of_text,
        "architectures": ["DeepseekOCRForCausalLM"],
        "auto_map": {"AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM"},
        "candidate_resolutions": [[SIDE, SIDE]],
        "global_view_pos": "head",
        "language_config": {"architectures": ["DeepseekV2ForCausalLM"], "auto_map": {}, **of_text},
        "model_type": "deepseek_vl_v2",
        "projector_config": {
            "input_dim": 128,
            "model_type": "mlp_projector",
            "n_embed": 48,
            "projector_type": "linear",
        },
        "tile_tag": "2D",
        "torch_dtype": "float32",
        "vision_config": {
            "image_size": SIDE,
            "mlp_ratio": 3.7362,
            "model_name": "deeplip_b_l",
            "model_type": "vision",
            "width": {"clip-l-14-224": _published(clip), "sam_vit_b": _published(_SAM)},
        },
    }
    (folder / "config.json").write_text(json.dumps(data))
    (folder / "processor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "generation_config.json").unlink(missing_ok=True)
    return data, model


def rows(model: Any, tiles: list[Any]) -> Any:
    """[rows, hidden_size] of the tiles of a picture, [H, W, 3]: its parts, where there are any, and the whole."""
    kind = model.lm_head.weight.dtype
    *parts, whole = (torch.as_tensor(tile).to(kind).permute(2, 0, 1) for tile in tiles)
    with torch.no_grad():
        if not parts:
            return model.model.get_image_features(whole[None]).pooler_output[0]
        (part,) = parts
        lines, columns = (side // PART for side in part.shape[1:])
        cut = part.reshape(3, lines, PART, columns, PART).permute(1, 3, 0, 2, 4).reshape(-1, 3, PART, PART)
        found = model.model.get_image_features(whole[None], cut, [len(cut)], [[columns, lines]])
        return found.pooler_output[0]


def _published(part: dict[str, Any]) -> dict[str, Any]:
    return {_NAMES.get(key, key): value for key, value in part.items()}
