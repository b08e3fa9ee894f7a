"""Qwen 3.5, text, dense: three layers in four keep a state by the gated delta rule, the fourth has attention with a
gate on its output, whose heads are rotated in part.
"""

from __future__ import annotations

from albireo.models.blocks.gated_delta import hybrid_decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.tiny import TINY_LLAMA

#: Values of four heads of 20 share keys of two of 12; the second layer has attention, a quarter of whose heads turns.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen3_5ForCausalLM"],
    "model_type": "qwen3_5_text",
    "vocab_size": 149,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 4,
    "head_dim": 16,
    "attn_output_gate": True,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "full_attention_interval": 2,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 20,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
    "mtp_num_hidden_layers": 1,
    "mamba_ssm_dtype": "float32",
    "bos_token_id": 1,
}


#: Qwen 3 Next's and 3.5's attention has a gate on its output, whether or not a key says so.
GATED = BlockSettings(has_output_gate=True)
#: Keys of layers that guess further tokens, which are left where they lie.
GUESSING = frozenset({"mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"})
CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=256,
    built_in={"attn_output_gate": True, "mamba_ssm_dtype": "float32"},
    defaults={"num_key_value_heads": 4, "partial_rotary_factor": 0.25},
    multipliers=Multipliers(norm_plus=1.0),
    blocks=GATED,
    recurrent="by_part",
    ignorable=GUESSING,
    class_names=("Qwen3_5ForCausalLM",),
)
build = hybrid_decoder
