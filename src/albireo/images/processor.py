"""open_processor: what prepares the pictures of a model, by its model_type.

Called by the front doors. Needs no Pillow until a picture comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.images.pixels import MAX_PIXELS
from albireo.images.prepared import ImageProcessor, PreparedImage
from albireo.images.settings import MAX_ROWS, Settings, read_settings

__all__ = ["ImageProcessor", "PreparedImage", "open_processor", "written_mark"]

#: By model_type: the file that is imported where such a model is opened, and the class in it that reads settings.
_FAMILIES: Mapping[str, str] = {
    "aya_vision": "cohere2_vision.AyaVision",
    "clip": "paired.Paired",
    "cohere2_vision": "cohere2_vision.Cohere2Vision",
    "deepseek_ocr": "deepseek_ocr.DeepseekOcr",
    "deepseek_ocr2": "deepseek_ocr.DeepseekOcr2",
    "deepseek_vl": "janus.DeepSeekVl",
    "dots_ocr": "qwen2_vl.DotsOcr",
    "ernie4_5_vl_moe": "ernie4_5_vl_moe.Ernie45VlMoe",
    "exaone4_5": "qwen2_vl.Exaone45",
    "gemma3": "gemma3.Gemma3",
    "gemma4": "gemma4.Gemma4",
    "gemma4_unified": "gemma4.Gemma4",
    "glm46v": "glm4v.Glm4v",
    "glm4v": "glm4v.Glm4v",
    "glm4v_moe": "glm4v.Glm4v",
    "glm_ocr": "glm4v.Glm4v",
    "granite4_vision": "granite4_vision.Granite4Vision",
    "got_ocr2": "got_ocr2.GotOcr2",
    "hunyuan_vl": "hunyuan_vl.HunyuanVl",
    "hyperclovax_vision_v2": "qwen2_vl.HyperClovaX",
    "idefics2": "idefics2.Idefics2",
    "idefics3": "idefics3.Idefics3",
    "internvl": "internvl.InternVL",
    # as it was first published
    "internvl_chat": "internvl.InternVLChat",
    "janus": "janus.Janus",
    "Keye": "paddleocr_vl.Keye",
    "KeyeVL1_5": "paddleocr_vl.Keye",
    "kimi_k25": "kimi_k25.KimiK25",
    "kimi_vl": "kimi_vl.KimiVl",
    "llama4": "llama4.Llama4",
    "llava": "llava.Llava",
    "llava_next": "llava_next.LlavaNext",
    "llava_onevision": "llava_onevision.LlavaOnevision",
    "lfm2_vl": "lfm2_vl.Lfm2Vl",
    # as it was first published
    "lfm2-vl": "lfm2_vl.Lfm2Vl",
    "lighton_ocr": "lighton_ocr.LightOnOcr",
    "minicpm_ocr": "minicpmv4_6.MiniCpmOcr",
    "minicpmo": "minicpmv.MiniCpmV",
    "minicpmv": "minicpmv.MiniCpmV",
    "minicpmv4_6": "minicpmv4_6.MiniCpmV46",
    "minimax_m3_vl": "minimax_m3_vl.MiniMaxM3",
    "mistral3": "mistral3.Mistral3",
    "mistral_large4": "mistral3.Mistral3",
    "nemotron_h_omni": "nemotron_h_omni.NemotronHOmni",
    "opencua": "qwen2_vl.OpenCua",
    "ovis2": "ovis2.Ovis2",
    "paddleocr_vl": "paddleocr_vl.PaddleOcrVl",
    "paligemma": "paligemma.PaliGemma",
    "phi3_v": "phi3_v.Phi3V",
    "phi4_multimodal": "phi4_multimodal.Phi4Multimodal",
    "pp_chart2table": "got_ocr2.PpChart2Table",
    "qianfan_ocr": "internvl.InternVL",
    "qwen2_5_omni": "qwen2_5_omni.Qwen25Omni",
    "qwen2_5_vl": "qwen2_vl.Qwen2VL",
    "qwen2_vl": "qwen2_vl.Qwen2VL",
    "qwen3_5": "qwen2_vl.Qwen2VL",
    "qwen3_5_moe": "qwen2_vl.Qwen2VL",
    "qwen3_omni_moe": "qwen2_vl.Qwen2VL",
    "qwen3_vl": "qwen2_vl.Qwen2VL",
    "qwen3_vl_moe": "qwen2_vl.Qwen2VL",
    "siglip": "paired.Paired",
    "smolvlm": "idefics3.Idefics3",
    "video_llama_3": "video_llama_3.VideoLlama3",
    "vipllava": "llava.Llava",
}
#: What chat templates write for a picture where that is no token, but the letters of one.
_WRITTEN: Mapping[str, str] = {
    # as its authors publish it
    "ernie4_5_vl_moe": "<|image@placeholder|>",
    **dict.fromkeys(("minicpmo", "minicpmv"), "(<image>./</image>)"),
    "ovis2": "<image>",
    "qianfan_ocr": "<image>",
}


def written_mark(config: Mapping[str, Any]) -> str | None:
    """What the chat templates of a model write for a picture, where it is not the placeholder of its processor."""
    return _WRITTEN.get(str(config.get("model_type")))


def open_processor(directory: Path, config: Mapping[str, Any]) -> ImageProcessor:
    """What prepares pictures as a directory says; config is what its config.json holds.

    Raises: ModelError for missing or damaged files and for values that contradict config.json; UnsupportedModel for
    another model, and for settings that are not computed.
    """
    place = _FAMILIES.get(str(config.get("model_type")))
    if place is None:
        raise UnsupportedModel(
            f"{directory}: of model_type={short(config.get('model_type'))} no pictures are read; of these they are: "
            f"{', '.join(_FAMILIES)}"
        )
    file, _, name = place.partition(".")
    read: Callable[[Settings], ImageProcessor] = getattr(import_module(f"{__package__}.{file}"), name).read
    found = read(read_settings(directory, config))
    _check_size(directory, found)
    return found


def _check_size(directory: Path, processor: ImageProcessor) -> None:
    """Raises: ModelError where the largest tile, or what stands for it in a prompt, takes gigabytes."""
    height, width = processor.largest_tile()
    rows = processor.rows(height, width) if height * width <= MAX_PIXELS else 0
    if height * width > MAX_PIXELS or rows > MAX_ROWS:
        raise ModelError(
            f"{directory}: config.json and what says how pictures are prepared mean tiles of {width} x {height} pixels"
            f"{f', which are {rows:,} rows' if rows else ''}; at most {MAX_PIXELS:,} pixels and {MAX_ROWS:,} rows are "
            "computed"
        )
