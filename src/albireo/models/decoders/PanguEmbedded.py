"""openPangu Embedded 1B and 7B: llama with biases of queries, keys, values and what comes out."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import llama

TINY = {
    **{
        key: value
        for key, value in llama.TINY.items()
        if key not in ("attention_bias", "head_dim", "mlp_bias", "rope_scaling")
    },
    "architectures": ["PanguEmbeddedForCausalLM"],
    "model_type": "PanguEmbedded",
    "num_hidden_layers": 2,
    "bias": True,
}
CONFIG = replace(
    llama.CONFIG,
    keys=frozenset({"attention_bias"}),
    older_names={"bias": "attention_bias"},
    defaults={
        "max_position_embeddings": 32768,
        "attention_bias": True,
        "rms_norm_eps": 1e-5,
        "rope_theta": 16e6,
    },
    built_in={},
    class_names=("PanguEmbeddedForCausalLM",),
)
build = llama.build
