"""EXAONE 3, 3.5 and Deep: llama under other names."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules

TINY = {
    "architectures": ["ExaoneForCausalLM"],
    "model_type": "exaone",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "silu",
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    older_names={
        "num_layers": "num_hidden_layers",
        "layer_norm_epsilon": "rms_norm_eps",
        "activation_function": "hidden_act",
    },
    deciding=frozenset({"num_layers", "layer_norm_epsilon", "activation_function"}),
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 4096},
    ignorable=keys("embed_dropout auto_map"),
    class_names=("ExaoneForCausalLM", "LlamaForCausalLM"),
)
build = partial(
    decoder,
    names=Names(
        *("transformer.h", "attn.attention", "out_proj", "mlp", "c_fc_1", "c_proj", "ln_1", "ln_2"), gate="c_fc_0"
    ),
    ends=Ends("transformer.wte.weight", "transformer.ln_f", "lm_head"),
)
