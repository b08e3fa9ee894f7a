"""StarCoder2: LayerNorm, biases, an FFN without a gate, a window."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["Starcoder2ForCausalLM"],
    "model_type": "starcoder2",
    "vocab_size": 139,
    "intermediate_size": 88,
    "hidden_act": "gelu_pytorch_tanh",
    "norm_epsilon": 1e-5,
    "sliding_window": 33,
    "use_bias": True,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("use_bias", True)
    return BlockSettings(is_layer_norm=True, qkv_bias=bias, o_bias=bias, ffn_bias=bias)


CONFIG = ConfigRules(
    names={"rms_norm_eps": "norm_epsilon"},
    blocks=_blocks,
    activation="plain",
    windows="every_layer",
    default_window=None,
    defaults={
        "norm_epsilon": 1e-5,
        "hidden_act": "gelu_pytorch_tanh",
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    # layer_norm is what norm_type says of every file there is; mlp_type is of the same time
    built_in={"norm_type": "layer_norm", "mlp_type": "default"},
    # scores are summed in float32 anyway; its class has the one eps
    ignorable=keys(
        "residual_dropout embedding_dropout layer_norm_epsilon",
        "attention_softmax_in_fp32 scale_attention_softmax_in_fp32",
    ),
)
build = partial(decoder, names=Names(up="c_fc", down="c_proj"))
