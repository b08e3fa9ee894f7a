"""Gemma 4 12B, text only: Gemma 4 without experts and without embeddings of layers, whose absent keys mean others."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import gemma4_text

_NOT_THERE = ("hidden_size_per_layer_input", "vocab_size_per_layer_input")
TINY = {
    **{key: value for key, value in gemma4_text.TINY.items() if key not in _NOT_THERE},
    "architectures": ["Gemma4UnifiedForCausalLM"],
    "model_type": "gemma4_unified_text",
    "use_bidirectional_attention": "vision",
}
CONFIG = replace(
    gemma4_text.CONFIG,
    default_window=1024,
    experts="none",
    built_in={**gemma4_text.CONFIG.built_in, "hidden_size_per_layer_input": 0},
    defaults={
        **gemma4_text.CONFIG.defaults,
        "hidden_size_per_layer_input": 0,
        "max_position_embeddings": 262144,
    },
    ignorable=frozenset(),
    class_names=("Gemma4UnifiedForCausalLM",),
)
build = gemma4_text.build
