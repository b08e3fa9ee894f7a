"""XVERSE 7B, 13B and 65B: llama.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import keys
from albireo.models.decoders import llama

TINY = {
    **{
        key: value
        for key, value in llama.TINY.items()
        if key not in ("head_dim", "rope_scaling", "num_key_value_heads")
    },
    "architectures": ["XverseForCausalLM"],
    "model_type": "xverse",
    "num_hidden_layers": 2,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 500000.0,
}
CONFIG = replace(
    llama.CONFIG,
    keys=frozenset(),
    built_in={},
    # of how texts were cut in training
    ignorable=keys("max_tokenizer_truncation"),
    class_names=("XverseForCausalLM",),
)
build = llama.build
