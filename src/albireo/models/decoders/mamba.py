"""Mamba 1 (130M to 2.8B): layers of Mamba 1 alone, so that a sequence has a state and no KV cache."""

from __future__ import annotations

from albireo.json_file import Fields, keys
from albireo.models.blocks.mamba1_mixer import mamba1_decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.mamba1_settings import MAMBA1_KEYS, Mamba1Settings, all_layers, parse_mamba1, states_alone

#: 80 channels of 12 numbers each; neither fills a vector, nor what an item of a kernel has.
TINY = {
    "architectures": ["MambaForCausalLM"],
    "model_type": "mamba",
    "vocab_size": 131,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "state_size": 12,
    "conv_kernel": 4,
    "expand": 2,
    "time_step_rank": 5,
    "use_conv_bias": True,
    "use_bias": False,
    "hidden_act": "silu",
    "layer_norm_epsilon": 1e-5,
    "residual_in_fp32": True,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _mamba(fields: Fields) -> Mamba1Settings | None:
    return parse_mamba1(fields, MAMBA1_KEYS, all_layers(fields), "none")


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_epsilon"},
    # nothing ends with a number of positions
    defaults={
        "num_attention_heads": 1,
        "max_position_embeddings": 262144,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    blocks=states_alone,
    mamba=_mamba,
    has_rope=False,
    built_in={"rms_norm": True},
    # of training, of how others run it, what files had before they were converted; our residual stream is float32
    ignorable=keys(
        "time_step_min time_step_max time_step_floor time_step_scale time_step_init_scheme",
        "rescale_prenorm_residual residual_in_fp32 use_mambapy use_associative_scan",
        "fused_add_norm ssm_cfg d_model d_inner n_layer pad_vocab_size_multiple",
    ),
    class_names=("MambaForCausalLM",),
)


build = mamba1_decoder
