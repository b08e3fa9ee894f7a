"""XGLM 564M to 7.5B: positions are sines and cosines, which no file has (checkpoint/sine_positions.py)."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, Positions, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers

TINY = {
    "architectures": ["XGLMForCausalLM"],
    "model_type": "xglm",
    "vocab_size": 127,
    "d_model": 48,
    "ffn_dim": 80,
    "num_layers": 2,
    "attention_heads": 4,
    "max_position_embeddings": 128,
    "activation_function": "gelu",
    "scale_embedding": True,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "torch_dtype": "float32",
}


def _multipliers(fields: Fields, known: frozenset[str], default: Multipliers) -> Multipliers:
    is_scaled = fields.flag("scale_embedding", True)
    return Multipliers(embedding=fields.integer("hidden_size", 1, MAX_WIDTH) ** 0.5 if is_scaled else 1.0)


CONFIG = ConfigRules(
    names={
        "hidden_size": "d_model",
        "intermediate_size": "ffn_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "attention_heads",
        "hidden_act": "activation_function",
    },
    older_names={"num_attention_heads": "attention_heads", "hidden_size": "d_model", "num_hidden_layers": "num_layers"},
    deciding=frozenset({"num_attention_heads", "hidden_size", "num_hidden_layers"}),
    blocks=BlockSettings(is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, norm_eps=1e-5),
    own_multipliers=_multipliers,
    has_rope=False,
    activation="plain",
    defaults={
        "vocab_size": 256008,
        "d_model": 1024,
        "ffn_dim": 4096,
        "num_layers": 24,
        "attention_heads": 16,
        "max_position_embeddings": 2048,
        "activation_function": "gelu",
        "tie_word_embeddings": True,
    },
    # of training
    ignorable=keys("dropout activation_dropout layerdrop init_std"),
    class_names=("XGLMForCausalLM",),
)
build = partial(
    decoder,
    names=Names("model.layers", "self_attn", "out_proj", "", "fc1", "fc2", "self_attn_layer_norm", "final_layer_norm"),
    ends=Ends("model.embed_tokens.weight", "model.layer_norm"),
    positions=Positions("model.embed_positions.weights"),
)
