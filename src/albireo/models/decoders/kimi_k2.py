"""Kimi K2: DeepSeek V3 under a name of its own."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import deepseek_v3

TINY = {**deepseek_v3.TINY, "model_type": "kimi_k2", "num_hidden_layers": 2, "n_group": 1, "topk_group": 1}
CONFIG = replace(deepseek_v3.CONFIG, class_names=("DeepseekV3ForCausalLM", "KimiK2ForCausalLM"))
build = deepseek_v3.build
