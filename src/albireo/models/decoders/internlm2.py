"""InternLM 2 and 2.5: llama whose rows of q, k and v lie in one tensor, by group of heads.

first_names.py has the names of its tensors.
"""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["InternLM2ForCausalLM"],
    "model_type": "internlm2",
    "vocab_size": 127,
    "intermediate_size": 72,
    "rms_norm_eps": 1e-5,
    "bias": False,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "bos_token_id": 1,
    "pad_token_id": 2,
}


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    older_names={"bias": "attention_bias"},
    blocks=BlockSettings(joined="by_group"),
    defaults=sizes(
        4096, 11008, 32, 32, vocab_size=103168, max_position_embeddings=2048, rms_norm_eps=1e-6, attention_bias=True
    ),
    # code of the directory, which is never run; and of rewards the token that a text is to end with
    ignorable=frozenset({"auto_map", "reward_token_id"}),
    class_names=("InternLM2ForCausalLM",),
)
build = partial(decoder, joined="qkv_proj")
