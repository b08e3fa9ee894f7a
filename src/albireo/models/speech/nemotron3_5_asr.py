"""Nemotron 3.5 ASR: a Nemotron Speech Streaming of many languages, which is told which one is spoken, or finds out.

What it is told is a number, read with the encoder's rows (models/hearing/fast_conformer.py).
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import keys
from albireo.models.speech import nemotron_asr_streaming

TINY = nemotron_asr_streaming.TINY | {
    "architectures": ["Nemotron3_5AsrForRNNT"],
    "model_type": "nemotron3_5_asr",
    "num_prompts": 8,
    "prompt_intermediate_size": 24,
    "default_prompt_id": 5,
}

CONFIG = replace(
    nemotron_asr_streaming.CONFIG,
    defaults={**nemotron_asr_streaming.CONFIG.defaults, "vocab_size": 13088},
    ignorable=nemotron_asr_streaming.CONFIG.ignorable | keys("num_prompts prompt_intermediate_size default_prompt_id"),
    class_names=("Nemotron3_5AsrForRNNT",),
)


build = nemotron_asr_streaming.build
