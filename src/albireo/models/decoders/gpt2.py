"""GPT-2: learned positions, q, k and v in one tensor, matrices that lie transposed (rearranged.py)."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, Positions, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 113,
    "n_embd": 48,
    "n_inner": None,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

#: Also of GPT-J, CodeGen, GPT BigCode and Jais.
NAMES = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "rms_norm_eps": "layer_norm_epsilon",
    "hidden_act": "activation_function",
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        scores_by_layer=fields.flag("scale_attn_by_inverse_layer_idx", False),
    )


CONFIG = ConfigRules(
    names=NAMES,
    blocks=_blocks,
    ffn_factor=4,
    has_rope=False,
    activation="plain",
    defaults={
        "vocab_size": 50257,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
    },
    # scores are summed and compared in float32 anyway
    ignorable=keys(
        "n_ctx reorder_and_upcast_attn n_special predict_special_tokens",
        "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
    ),
    class_names=("GPT2LMHeadModel",),
)
build = partial(
    decoder,
    names=Names("transformer.h", "attn", "c_proj", "mlp", "c_fc", "c_proj", "ln_1", "ln_2", joined="c_attn"),
    ends=Ends("transformer.wte.weight", "transformer.ln_f", "lm_head"),
    positions=Positions("transformer.wpe.weight"),
)
