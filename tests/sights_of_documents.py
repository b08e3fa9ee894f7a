"""Tiny models that write down what is on a page.

Used by tiny_sights.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MethodType
from typing import Any

import numpy as np
import pytest

import sight_inputs
from sight_family import LLAMA, SIGLIP, Family, text_of

torch = pytest.importorskip("torch")

_BEGIN, _END, _ROWS = (f"<｜hy_place▁holder▁no▁{number}｜>" for number in (100, 101, 102))
_ROPE = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 1.0, "alpha": 9.0, "mrope_section": [2, 1, 3, 2]}


def _of_hunyuan_vl(prompt: list[int], ids: Mapping[str, int], tiles: list[np.ndarray]) -> dict[str, Any]:
    """Patches in reading order."""
    patches = [sight_inputs.cut(tile, 1).permute(0, 1, 2, 3, 6, 4, 5).reshape(-1, 3 * 8 * 8) for tile in tiles]
    places = sight_inputs.of_qwen(prompt, {"<|image_pad|>": ids[_ROWS]}, tiles)
    return {**places, "pixel_values": torch.cat(patches)}


def _with_sections_in_halves(model: Any) -> None:
    """transformers 5.24 gives each axis channels side by side in a head, of which two that turn with each other would
    turn by different axes; in its authors' code and in vLLM, each axis has pairs, as in Qwen's models."""
    rotary = model.model.language_model.rotary_emb

    def composed(self: Any, numbers: Any) -> Any:
        parts = numbers.split(self.mrope_section, dim=-1)
        half = torch.cat([part[axis] for axis, part in enumerate(parts)], dim=-1)
        return torch.cat((half, half), dim=-1)

    rotary.recomposition_frequencies = MethodType(composed, rotary)


_SAM = {
    "hidden_size": 32,
    "mlp_dim": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "output_channels": 16,
    "image_size": 64,
    "patch_size": 8,
    "window_size": 3,
    "global_attn_indexes": [1],
}


def _got_ocr2(written: str, processor: str) -> Family:
    """Args: written: what a template writes for a picture."""
    return Family(
        "GotOcr2ForConditionalGeneration",
        ("<imgpad>", "<img>", "</img>"),
        written,
        lambda ids: {
            "text_config": {**LLAMA, "model_type": "qwen2", "vocab_size": len(ids)},
            "vision_config": _SAM,
            "image_token_index": ids["<imgpad>"],
        },
        {"preprocessor_config.json": {"image_processor_type": processor, "size": {"height": 64, "width": 64}}},
        inputs=sight_inputs.of_internvl,
    )


OF_DOCUMENTS: dict[str, Family] = {
    # its templates write all rows
    "pp_chart2table": _got_ocr2("<img><imgpad><imgpad><imgpad><imgpad></img>", "PPChart2TableImageProcessor"),
    "got_ocr2": _got_ocr2("<img><imgpad></img>", "GotOcr2ImageProcessorFast"),
    "minicpm_ocr": Family(
        "MiniCPMOcrForConditionalGeneration",
        ("<|image_pad|>", "<|video_pad|>", "<image>", "</image>", "<slice>", "</slice>", "<image_id>", "</image_id>"),
        "<|image_pad|>",
        lambda ids: {
            "text_config": {**text_of("qwen3_5_text"), "vocab_size": len(ids)},
            "vision_config": {**SIGLIP, "num_hidden_layers": 3},
            "insert_layer_id": 0,
            "image_token_id": ids["<|image_pad|>"],
            "video_token_id": ids["<|video_pad|>"],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "MiniCPMOcrImageProcessor",
                "patch_size": 8,
                "scale_resolution": 48,
                "max_slice_nums": 4,
                "small_image_upsize": "never",
            }
        },
        inputs=sight_inputs.of_minicpmv4_6,
    ),
    "hunyuan_vl": Family(
        "HunYuanVLForConditionalGeneration",
        (_BEGIN, _END, _ROWS),
        f"{_BEGIN}{_ROWS}{_END}",
        lambda ids: {
            "text_config": {
                **{key: value for key, value in LLAMA.items() if key not in ("model_type", "rope_theta")},
                "vocab_size": len(ids),
                "head_dim": 16,
                "rope_parameters": _ROPE,
            },
            "vision_config": {**{key: value for key, value in SIGLIP.items() if key != "image_size"}}
            | {"max_image_size": 48},
            "image_token_id": ids[_ROWS],
            "im_start_id": ids[_BEGIN],
            "im_end_id": ids[_END],
        },
        {
            "preprocessor_config.json": {
                "image_processor_type": "HunYuanVLImageProcessor",
                "patch_size": 8,
                "min_pixels": 256,
                "max_pixels": 4096,
                "resample": 1,
            }
        },
        inputs=_of_hunyuan_vl,
        mended=_with_sections_in_halves,
    ),
}
