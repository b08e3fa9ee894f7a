"""Keys that published files of further models that read pictures have: all are read, or change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albireo.images.processor import open_processor
from albireo.models import load_config
from albireo.models.settings.text_part import inner
from albireo.models.vision.tower import open_tower
from images.published_assistants import ASSISTANTS
from images.published_mixtures import MIXTURES
from images.published_pages import PAGES
from images.published_pictures import PICTURES

PUBLISHED = PAGES | PICTURES | MIXTURES | ASSISTANTS
#: The text part's architecture and width of heads; patches and rows of the largest tile, numbers that the projector
#: reads of one.
WANTED = {
    "Ovis2-1B": ("qwen2", 64, 256, 259, 65536),
    "Janus-Pro-1B": ("llama", 128, 576, 576, 1024),
    "DeepSeek-VL-1.3B": ("llama", 128, 576, 576, 1024),
    "GOT-OCR 2.0": ("qwen2", 64, 1024, 256, 4608),
    "PP-Chart2Table": ("qwen2", 64, 1024, 256, 4608),
    "Qianfan-OCR": ("qwen3", 128, 1025, 256, 4096),
    "Nemotron 3 Nano Omni": ("nemotron_h", 128, 13322, 3328, 5120),
    "VideoLLaMA 3 2B": ("qwen2", 128, 16384, 16384, 1152),
    "LFM2-VL-3B": ("lfm2", 64, 1024, 256, 4608),
    "Aya Vision 8B": ("cohere2", 128, 676, 169, 4608),
    "SmolVLM2 2.2B": ("llama", 64, 729, 81, 10368),
    "Kimi K2.5": ("kimi_k2", 576, 17928, 4482, 4608),
    "DeepSeek-OCR": ("deepseek", 128, 606, 660, 2048),
    "DeepSeek-OCR 2": ("deepseek", 128, 864, 864, 896),
    "MiniCPM-V 4.5": ("qwen3", 128, 64, 64, 4096),
    "MiniCPM-o 2.6": ("qwen2", 128, 64, 64, 3584),
    "Phi-3.5-vision": ("phi3", 96, 17 * 577, 16 * 12 * 13 + 1 + 12 * 13, 4096),
    "dots.ocr": ("qwen2", 128, 57600, 14400, 6144),
    "Kimi-VL-A3B": ("deepseek_v3", 576, 5496, 1374, 4608),
    "Llama 4 Scout": ("llama4_text", 128, 577, 144, 5632),
    "ViP-LLaVA 7B": ("llama", 128, 577, 576, 5120),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_keys(name: str, tmp_path: Path) -> None:
    files = ("config.json", "preprocessor_config.json", "processor_config.json")
    for file, held in zip(files, PUBLISHED[name], strict=False):
        if held:
            (tmp_path / file).write_text(json.dumps(held))
    model, data = load_config(tmp_path), inner(PUBLISHED[name][0])
    tower, processor = open_tower(data, "bfloat16", "config.json"), open_processor(tmp_path, data)
    largest = processor.largest_tile()
    assert tower.rows(*largest) == processor.rows(*largest)
    (given,) = [node for node in tower.projector().nodes if node.op == "given"]
    read = given.attrs["width"]
    found = model.model_type, model.head_dim, tower.patches(*largest), tower.rows(*largest), read
    assert found == WANTED[name]
