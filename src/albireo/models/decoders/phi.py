"""Phi-1, Phi-1.5, Phi-2: attention and FFN read the same norm, biases everywhere, the head's too."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: A third of each head rotated.
TINY = TINY_LLAMA | {
    "architectures": ["PhiForCausalLM"],
    "model_type": "phi",
    "vocab_size": 137,
    "intermediate_size": 80,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
    "partial_rotary_factor": 0.34,
    "rope_theta": 10000.0,
    "qk_layernorm": False,
    "bos_token_id": 1,
}


CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor"),
    names={"rms_norm_eps": "layer_norm_eps"},
    blocks=BlockSettings(
        is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, is_parallel=True, has_ffn_norm=False
    ),
    activation="plain",
    defaults={
        "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.5,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 2048,
    },
)
build = partial(
    decoder,
    names=Names(o="dense", up="fc1", down="fc2"),
    ends=Ends(norm="model.final_layernorm"),
    has_head_bias=True,
)
