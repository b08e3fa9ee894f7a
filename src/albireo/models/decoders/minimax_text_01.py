"""MiniMax Text-01 as its authors publish it: minimax.py, under first names of its numbers; half of each head rotated.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import keys
from albireo.models.decoders import minimax

_BLOCKS = {"linear_attention": "linear_attn", "full_attention": "full_attn", "mlp": "mlp"}
#: Layers are told by numbers; every other channel of a head is rotated.
TINY = {
    key: value
    for key, value in minimax.TINY.items()
    if not key.endswith("_factor") and key not in ("layer_types", "block_size")
} | {
    "architectures": ["MiniMaxText01ForCausalLM"],
    "model_type": "minimax_text_01",
    "num_hidden_layers": 3,
    "attn_type_list": [0, 1, 0],
    "rotary_dim": 8,
    "layernorm_linear_attention_alpha": 3.5,
    "layernorm_linear_attention_beta": 1.0,
    "layernorm_full_attention_alpha": 3.5,
    "layernorm_full_attention_beta": 1.0,
    "layernorm_mlp_alpha": 3.5,
    "layernorm_mlp_beta": 1.0,
    "postnorm": True,
    "shared_intermediate_size": 0,
    "shared_moe_mode": "sigmoid",
}
CONFIG = replace(
    minimax.CONFIG,
    older_names={
        f"layernorm_{old}_{part}": f"{new}_{part}_factor" for old, new in _BLOCKS.items() for part in ("alpha", "beta")
    },
    # residual sums of what is not normed are computed nowhere
    built_in={"postnorm": True},
    ignorable=keys("block_size shared_moe_mode"),
    class_names=("MiniMaxText01ForCausalLM", "MiniMaxM1ForCausalLM", "MiniMaxForCausalLM"),
)
IGNORABLE_WEIGHTS, build = minimax.IGNORABLE_WEIGHTS, minimax.build
