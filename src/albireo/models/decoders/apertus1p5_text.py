"""Apertus 1.5, text: Apertus with tokens of pictures and sounds behind those of text, which the head need not know.

Of a head that is shorter than the table the first rows of the table alone are read: no other token is written, nor can
one be given without pictures or sounds.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import apertus

TINY = {
    **{key: value for key, value in apertus.TINY.items() if key not in ("rope_scaling", "mlp_bias", "post_norm")},
    "architectures": ["Apertus1p5TextForCausalLM"],
    "model_type": "apertus1p5_text",
    "vocab_size": 141,
    "output_vocab_size": 121,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 12000000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
TINY.pop("rope_theta")


CONFIG = replace(
    apertus.CONFIG,
    older_names={"output_vocab_size": "vocab_size"},
    # fewer tokens are written than are read
    deciding=frozenset({"output_vocab_size"}),
    defaults={
        **apertus.CONFIG.defaults,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 12000000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    },
)
FIXED, IGNORABLE_WEIGHTS = apertus.FIXED, apertus.IGNORABLE_WEIGHTS
LONGER_WEIGHTS = ("model.embed_tokens.weight",)
build = apertus.build
