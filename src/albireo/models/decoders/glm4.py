"""GLM-4 and GLM-Z1 of 0414: GLM with norms of what is added, too."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import Norms
from albireo.models.decoders import glm

#: Half of each head rotated.
TINY = glm.TINY | {
    "architectures": ["Glm4ForCausalLM"],
    "model_type": "glm4",
    "vocab_size": 115,
    "intermediate_size": 84,
}

CONFIG = replace(glm.CONFIG, ignorable=frozenset({"num_nextn_predict_layers"}))

_ATTENTION = Norms("input_layernorm", "post_self_attn_layernorm")
_FFN = Norms("post_attention_layernorm", "post_mlp_layernorm")
build = partial(decoder, ffn=partial(mlp_block, joined="gate_up_proj", norms=_FFN), norms=_ATTENTION, o_bias=False)
