"""Tiny models that read a picture as one sheet, or as pieces of which each may have another size.

Used by tiny_sights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from albireo.models.vision.sheet import Sheet
from sight_family import LLAMA, SIGLIP, Family

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

_BLOCK = 64


def _of_phi4_multimodal(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Blocks, the whole picture first, and which of their patches are seen; of all pictures as many."""
    pictures, sizes, seen = [], [], []
    for tile in tiles:
        sheet = Sheet.of(*tile.shape[:2], _BLOCK, 32)
        sizes.append([sheet.rows * _BLOCK, sheet.columns * _BLOCK])
        whole = torch.tensor(tile[: sizes[-1][0], : sizes[-1][1]]).permute(2, 0, 1)
        small = torch.nn.functional.interpolate(whole[None], (_BLOCK, _BLOCK), mode="bicubic", align_corners=False)
        cut = whole.reshape(3, sheet.rows, _BLOCK, sheet.columns, _BLOCK).permute(1, 3, 0, 2, 4).flatten(0, 1)
        pictures.append(torch.cat([small, cut]))
        seen.append(torch.zeros(len(pictures[-1]), 32, 32))
        for mask, (high, wide) in zip(seen[-1], ((32, 32), *sheet.seen), strict=True):
            mask[:high, :wide] = 1
    most = max(map(len, pictures))
    padded = [torch.nn.functional.pad(each, (0, 0) * 3 + (0, most - len(each))) for each in pictures]
    masks = [torch.nn.functional.pad(each, (0, 0) * 2 + (0, most - len(each)), value=1) for each in seen]
    return {
        "image_pixel_values": torch.stack(padded),
        "image_sizes": torch.tensor(sizes),
        "image_attention_mask": torch.stack(masks),
    }


_IDEFICS2 = {"size": {"shortest_edge": 16, "longest_edge": 48}, "do_image_splitting": True}


def _idefics2(tokenizer: Any) -> Any:
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    return transformers.Idefics2Processor(Idefics2ImageProcessorPil(**_IDEFICS2), tokenizer, image_seq_len=5)


OF_SHEETS: dict[str, Family] = {
    "idefics2": Family(
        "Idefics2ForConditionalGeneration",
        ("<image>", "<fake_token_around_image>", "<end_of_utterance>"),
        "<image>",
        lambda ids: {
            "text_config": {**LLAMA, "model_type": "mistral", "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "image_size": 48},
            "perceiver_config": {
                **{"hidden_size": 48, "resampler_n_latents": 5, "resampler_depth": 2},
                **{"resampler_n_heads": 4, "resampler_head_dim": 16, "num_key_value_heads": 2},
            },
            "image_token_id": ids["<image>"],
        },
        {
            "preprocessor_config.json": {"image_processor_type": "Idefics2ImageProcessor", **_IDEFICS2},
            "processor_config.json": {"processor_class": "Idefics2Processor", "image_seq_len": 5},
        },
        _idefics2,
    ),
    "phi4_multimodal": Family(
        "Phi4MultimodalForCausalLM",
        ("<|image|>", "<|audio|>"),
        "<|image|>",
        lambda ids: {
            **{key: value for key, value in LLAMA.items() if key not in ("model_type", "rope_theta")},
            "original_max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
            "vocab_size": len(ids),
            "vision_config": {
                # of which the last is not asked
                **{**SIGLIP, "num_hidden_layers": 3, "image_size": 64, "crop_size": 64, "patch_size": 2},
                "image_token_id": ids["<|image|>"],
            },
            "audio_config": {
                **{"hidden_size": 16, "intermediate_size": 16, "num_blocks": 1, "num_attention_heads": 2},
                **{"ext_pw_out_channel": 16, "depthwise_separable_out_channel": 16, "nemo_conv_channels": 4},
                **{"input_size": 8, "audio_token_id": ids["<|audio|>"]},
            },
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "Phi4MultimodalImageProcessor",
                "feature_extractor_type": "Phi4MultimodalFeatureExtractor",
                "feature_size": 8,
                "size": {"height": _BLOCK, "width": _BLOCK},
                "patch_size": 2,
                "dynamic_hd": 3,
            }
        },
        inputs=_of_phi4_multimodal,
    ),
}
