"""Sizes that classes of transformers have by themselves: files of models with several parts leave them out.

Called by text_part.py; and how the files of families write such sizes. Does not know the rest of a config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The last is as many as heads where a class does not say it.
_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "num_key_value_heads",
)
_NUMBERS: Mapping[str, tuple[int, ...]] = {
    "clip_text_model": (49408, 512, 2048, 12, 8, 77),
    "cohere": (256000, 8192, 22528, 40, 64, 8192),
    "cohere2": (256000, 8192, 22528, 40, 64, 8192),
    "exaone4": (102400, 4096, 16384, 32, 32, 2048, 32),
    "gemma": (256000, 3072, 24576, 28, 16, 8192, 16),
    "gemma2": (256000, 2304, 9216, 26, 8, 8192, 4),
    "gemma3_text": (262208, 2304, 9216, 26, 8, 131072, 4),
    "glm4v_text": (151552, 4096, 13696, 40, 32, 32768, 2),
    "glm_ocr_text": (59392, 1024, 4096, 16, 16, 131072, 8),
    "glmasr": (59264, 2048, 6144, 28, 16, 8192, 4),
    "got_ocr2": (151860, 1024, 2816, 24, 16, 32768, 16),
    "pp_chart2table": (151860, 1024, 2816, 24, 16, 32768, 16),
    "granite": (32000, 4096, 11008, 32, 32, 2048),
    "idefics2": (32000, 4096, 14336, 32, 32, 32768, 8),
    "llama": (32000, 4096, 11008, 32, 32, 2048),
    "ministral3": (131072, 4096, 14336, 34, 32, 262144, 8),
    "mistral": (32000, 4096, 14336, 32, 32, 131072, 8),
    "mistral_large4_text": (204800, 6144, 24576, 72, 64, 1048576, 64),
    "paddleocr_vl_text": (103424, 1024, 3072, 18, 16, 131072, 2),
    "qwen2": (151936, 4096, 22016, 32, 32, 32768, 32),
    "qwen2_5_omni_text": (152064, 3584, 18944, 28, 28, 32768, 4),
    "qwen2_5_vl_text": (152064, 8192, 29568, 80, 64, 32768, 8),
    "qwen2_vl_text": (152064, 8192, 29568, 80, 64, 32768, 8),
    "qwen3": (151936, 4096, 22016, 32, 32, 32768, 32),
    "qwen3_vl_text": (151936, 4096, 22016, 32, 32, 128000, 32),
    "fun_asr_nano": (151936, 1024, 3072, 28, 16, 40960, 8),
    "siglip_text_model": (32000, 768, 3072, 12, 12, 64),
    "voxtral": (131072, 3072, 8192, 30, 32, 131072, 8),
    "voxtral_realtime": (131072, 3072, 9216, 26, 32, 131072, 8),
}
#: By the model_type of a text part; or of a whole whose class gives its part sizes of its own.
OF_CLASSES: Mapping[str, Mapping[str, int]] = {
    part: dict(zip(_KEYS, numbers, strict=False)) for part, numbers in _NUMBERS.items()
}


def sizes(hidden_size: int, intermediate_size: int, num_layers: int, num_heads: int, **others: Any) -> dict[str, Any]:
    """What absent keys mean: of the residual stream, of FFNs, how many layers, heads of one; others by their names."""
    named = zip(_KEYS[1:5], (hidden_size, intermediate_size, num_layers, num_heads), strict=True)
    return {**dict(named), **others}
