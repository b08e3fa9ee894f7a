"""Further tiny models that read pictures; see tiny_towers.py, which uses them."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.models.vision.mosaic import Mosaic
from albireo.models.vision.sheet import Sheet
from tower_family import LLAMA, SIGLIP, Family, patches_of, text_of

torch = pytest.importorskip("torch")


def _of_llama4(model: Any, tile: Any) -> Any:
    found = model.get_image_features(tile.permute(2, 0, 1)[None]).last_hidden_state
    return model.multi_modal_projector(found)[0]


def _of_kimi_k25(model: Any, tile: Any) -> Any:
    """Patches in reading order, each a picture, of one frame after another."""
    count = tile.shape[1] % 16 + 1
    high, wide = tile.shape[0] // count, tile.shape[1] - count + 1
    frames = [patches_of(frame[:, :wide], 8).permute(0, 1, 2, 3, 6, 4, 5) for frame in tile.split(high)]
    patches = torch.cat([frame.reshape(-1, 3, 8, 8) for frame in frames])
    return model.model.get_image_features(patches, torch.tensor([[count, high // 8, wide // 8]])).pooler_output[0]


def _of_minimax_m3_vl(model: Any, tile: Any) -> Any:
    """Patches in blocks of what is merged, each of two frames alike, of one moment after another."""
    merge = model.config.vision_config.spatial_merge_size
    count = tile.shape[1] % (8 * merge) + 1
    high, wide = tile.shape[0] // count, tile.shape[1] - count + 1
    patches = []
    for moment in tile.split(high):
        cut = patches_of(moment[:, :wide], 8, merge)
        frames = cut.permute(0, 1, 2, 3, 6, 4, 5)[:, :, :, :, :, None].expand(*cut.shape[:4], 3, 2, 8, 8)
        patches.append(frames.reshape(-1, 3 * 2 * 8 * 8))
    grid = torch.tensor([[count, high // 8, wide // 8]])
    return model.model.get_image_features(torch.cat(patches), grid).pooler_output[0]


def _of_idefics2(model: Any, tile: Any) -> Any:
    return model.get_image_features(tile.permute(2, 0, 1)[None, None]).pooler_output[0]


def _of_mistral_large4(model: Any, tile: Any) -> Any:
    sizes = torch.tensor([tile.shape[:2]])
    return model.model.get_image_features(tile.permute(2, 0, 1)[None], sizes).pooler_output[0]


def _of_phi4_multimodal(model: Any, tile: Any) -> Any:
    """Blocks of a sheet, and which of their patches are seen; the whole as transformers' processor makes it."""
    part, size = model.model.embed_tokens_extend.image_embed, tile.shape[:2]
    sheet = Sheet.of(*size, 64, 32)
    picture = tile[: sheet.rows * 64, : sheet.columns * 64].permute(2, 0, 1)
    whole = torch.nn.functional.interpolate(picture[None], size=(64, 64), mode="bicubic", align_corners=False)
    cut = picture.reshape(3, sheet.rows, 64, sheet.columns, 64).permute(1, 3, 0, 2, 4).reshape(-1, 3, 64, 64)
    seen = torch.zeros(1 + len(cut), 32, 32, dtype=torch.bool)
    for mask, (high, wide) in zip(seen, ((32, 32), *sheet.seen), strict=True):
        mask[:high, :wide] = True
    ids = torch.full((1, 4000), model.config.vision_config.image_token_id)
    high, wide = sheet.kept
    ids = ids[:, : high * (wide + 1) + 1 + 16 * 17]
    return part(
        ids,
        torch.zeros(1, ids.shape[1], model.config.hidden_size, dtype=tile.dtype),
        torch.cat([whole, cut])[None],
        image_sizes=torch.tensor([[sheet.rows * 64, sheet.columns * 64]]),
        image_attention_mask=seen[None],
    )[0]


#: Grids smaller and larger than the table of positions, and one line of blocks.
ANY = ((48, 96), (112, 80), (16, 144))


def _of_ernie4_5_vl_moe(model: Any, tile: Any) -> Any:
    """Patches in blocks of what is merged."""
    patches = patches_of(tile, 8, 2).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8)
    grid = torch.tensor([[1, tile.shape[0] // 8, tile.shape[1] // 8]])
    return model.model.get_image_features(patches, grid).pooler_output[0]


#: Four experts of 24 channels, and as many of 8 for pictures; of three layers the last two have them.
ERNIE = {
    "model_type": "ernie4_5_vl_moe_text",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "vocab_size": 99,
    "max_position_embeddings": 2048,
    "moe_intermediate_size": [24, 8],
    "moe_k": 2,
    "moe_num_experts": 4,
    "moe_num_shared_experts": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
}


def _of_granite4_vision(model: Any, tile: Any) -> Any:
    """Blocks of a mosaic, the whole picture first; rows of each layer beside those of embeddings, which are none."""
    mosaic = Mosaic.of(*tile.shape[:2], 32)
    blocks = torch.stack([block.permute(2, 0, 1) for block in mosaic.blocks(tile, 32)])
    high, wide = mosaic.grid(2)
    found = model.get_image_features(blocks[None], torch.tensor([[high * 16, wide * 16]])).deepstack_features
    rows = [rows[0] for _, rows in sorted(found, key=lambda each: each[0])]
    return torch.cat(rows if found[0][0] == 0 else [torch.zeros_like(rows[0]), *rows], dim=1)


FURTHER: dict[str, Family] = {
    # its whole, whose tensors alone are saved under published names
    "ernie4_5_vl_moe": Family(
        "Ernie4_5_VLMoeForConditionalGeneration",
        ANY,
        _of_ernie4_5_vl_moe,
        {"hidden_size": 144, "intermediate_size": 200, "depth": 3, "num_heads": 2, "patch_size": 8},
        ERNIE,
    ),
    "granite4_vision": Family(
        "Granite4VisionModel",
        tuple(mosaic.size(32) for mosaic in (Mosaic(1, 1), Mosaic(1, 2), Mosaic(3, 1, 1))),
        _of_granite4_vision,
        {**SIGLIP, "model_type": "siglip_vision_model", "image_size": 32, "hidden_size": 128},
        {**LLAMA, "model_type": "granite4_vision_text", "num_hidden_layers": 8},
        {
            **{"deepstack_layer_map": [[1, 0], [-1, 3]], "spatial_target_layers": [2, 1, 5, 7]},
            **{"downsample_rate": "1/2", "vision_feature_select_strategy": "full"},
            "qformer_config": {"model_type": "blip_2_qformer", "num_hidden_layers": 2, "intermediate_size": 60},
            "image_grid_pinpoints": [[32, 32], [32, 64], [96, 32]],
        },
    ),
    # its whole, whose tensors alone are saved under published names
    "kimi_k25": Family(
        "Kimi_K25ForConditionalGeneration",
        # the last of two and of three frames
        (*ANY, (2 * 32, 48 + 1), (3 * 16, 64 + 2)),
        _of_kimi_k25,
        {
            **{key: value for key, value in SIGLIP.items() if key != "image_size"},
            **{"pos_emb_height": 6, "pos_emb_width": 6},
        },
        text_of("deepseek_v3"),
        {"projection_hidden_size": 144},
    ),
    # its whole, whose tensors alone are saved under published names; the last channels of its heads do not turn
    "minimax_m3_vl": Family(
        "MiniMaxM3SparseForConditionalGeneration",
        # the last of two and of three moments
        (*ANY, (2 * 32, 48 + 1), (3 * 16, 64 + 2)),
        _of_minimax_m3_vl,
        {**SIGLIP, "hidden_size": 160},
        text_of("minimax_m3_vl_text"),
        {"projector_hidden_size": 100},
    ),
    # of the last pixels of two tiles nothing is seen
    "idefics2": Family(
        "Idefics2Model",
        ((96, 96), (52, 90), (8, 40)),
        _of_idefics2,
        SIGLIP,
        {**LLAMA, "model_type": "mistral", "num_key_value_heads": 2, "head_dim": 24},
        {
            "perceiver_config": {
                **{"hidden_size": 48, "rms_norm_eps": 1e-4, "resampler_n_latents": 5, "resampler_depth": 3},
                **{"resampler_n_heads": 4, "resampler_head_dim": 16, "num_key_value_heads": 2},
            }
        },
    ),
    # its whole, whose tensors alone are saved under published names
    "mistral_large4": Family(
        "MistralLarge4ForConditionalGeneration",
        ANY,
        _of_mistral_large4,
        {
            **{key: value for key, value in SIGLIP.items() if key != "image_size"},
            **{"hidden_size": 128, "hidden_act": "silu"},
        },
        text_of("mistral_large4_text"),
    ),
    # its whole, which has no parts: one block, two whose last lines are of half a row, and as many columns
    "phi4_multimodal": Family(
        "Phi4MultimodalForCausalLM",
        ((64, 64), (128 + 5, 64), (64, 128 + 6), (64 + 31, 64)),
        _of_phi4_multimodal,
        {**SIGLIP, "image_size": 64, "crop_size": 64, "patch_size": 2, "image_token_id": 5},
        {},
        {
            **{key: value for key, value in LLAMA.items() if key != "model_type"},
            "num_key_value_heads": 2,
            "audio_config": {"hidden_size": 8, "intermediate_size": 8, "num_blocks": 1, "num_attention_heads": 1},
        },
        max_patches=3072,
    ),
    # its whole: there is no model without a head
    "llama4": Family(
        "Llama4ForConditionalGeneration",
        ((96, 96),),
        _of_llama4,
        {
            **SIGLIP,
            **{"intermediate_size": 576, "projector_input_dim": 80, "projector_output_dim": 80},
            "vision_output_dim": 80,
        },
        text_of("llama4_text"),
    ),
}
