"""GPT-NeoX, Pythia: attention and FFN side by side, each with a norm; rows of q, k and v head by head in one tensor."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings

#: A third of each head rotated.
TINY = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 88,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rotary_pct": 0.34,
    "rotary_emb_base": 10000,
    "use_parallel_residual": True,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", True)
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=True,
        is_parallel=fields.flag("use_parallel_residual", True),
        joined="by_group",
    )


CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor"),
    names={
        "rms_norm_eps": "layer_norm_eps",
        "partial_rotary_factor": "rotary_pct",
        "rope_theta": "rotary_emb_base",
    },
    blocks=_blocks,
    activation="plain",
    defaults={
        "layer_norm_eps": 1e-5,
        "rotary_pct": 0.25,
        "hidden_act": "gelu",
        "max_position_embeddings": 2048,
    },
    ignorable=keys("classifier_dropout num_steps"),
    class_names=("GPTNeoXForCausalLM",),
)
build = partial(
    decoder,
    names=Names(
        "gpt_neox.layers",
        "attention",
        "dense",
        "mlp",
        "dense_h_to_4h",
        "dense_4h_to_h",
        joined="query_key_value",
    ),
    ends=Ends("gpt_neox.embed_in.weight", "gpt_neox.final_layer_norm", "embed_out"),
)
