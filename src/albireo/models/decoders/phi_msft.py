"""Phi-1.5 and 2 as they were first published, and what was made of them then: phi, whose q, k and v lie in one tensor,
under other names.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders import phi

#: A third of each head rotated.
TINY = {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi-msft",
    "vocab_size": 137,
    "n_embd": 48,
    "n_inner": None,
    "n_layer": 2,
    "n_head": 4,
    "n_head_kv": None,
    "n_positions": 128,
    "rotary_dim": 4,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
CONFIG = ConfigRules(
    keys=keys("rotary_dim partial_rotary_factor"),
    names={
        "hidden_size": "n_embd",
        "intermediate_size": "n_inner",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "num_key_value_heads": "n_head_kv",
        "max_position_embeddings": "n_positions",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "activation_function",
    },
    blocks=phi.CONFIG.blocks,
    ffn_factor=4,
    activation="plain",
    defaults={
        "vocab_size": 50304,
        "n_embd": 1024,
        "n_layer": 20,
        "n_head": 16,
        "n_positions": 2048,
        "rotary_dim": 32,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    },
    # of how it is run
    ignorable=keys("flash_attn flash_rotary fused_dense"),
    class_names=("PhiForCausalLM",),
)
build = partial(
    decoder,
    names=Names("transformer.h", "mixer", "out_proj", "mlp", "fc1", "fc2", "ln", joined="Wqkv"),
    ends=Ends("transformer.embd.wte.weight", "lm_head.ln", "lm_head.linear"),
    has_head_bias=True,
)
