"""AquilaChat and Aquila 2, 7B and 34B: llama."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import llama

TINY = {
    **{key: value for key, value in llama.TINY.items() if key not in ("head_dim", "rope_scaling")},
    "architectures": ["AquilaForCausalLM"],
    "model_type": "aquila",
    "num_hidden_layers": 2,
    "attention_bias": False,
    "mlp_bias": False,
}
CONFIG = replace(
    llama.CONFIG,
    keys=frozenset(),
    built_in={},
    class_names=("AquilaForCausalLM", "AquilaModel"),
)
build = llama.build
