"""Qwen 1: llama with biases of q, k and v, which lie in one tensor, under other names.

What scales queries by the logarithm of their position, and what stretches its rotation, holds behind seq_length, which
is the context here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["QWenLMHeadModel"],
    "model_type": "qwen",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 152,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 12,
    "seq_length": 128,
    "layer_norm_epsilon": 1e-6,
    "no_bias": True,
    "rotary_emb_base": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def _of_each(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """With the channels of a gate alone, where the file says those of gate and up together.

    Raises: ModelError.
    """
    fields = Fields(data, where)
    both = fields.integer("intermediate_size", 2, 2 * MAX_WIDTH, default=22016)
    if both % 2:
        fields.fail("intermediate_size", both, "must be even: half of it is the gate's")
    return {**data, "intermediate_size": both // 2}


CONFIG = ConfigRules(
    names={"max_position_embeddings": "seq_length", "rms_norm_eps": "layer_norm_epsilon"},
    older_names={"rotary_emb_base": "rope_theta", "kv_channels": "head_dim"},
    rewritten=_of_each,
    blocks=BlockSettings(qkv_bias=True),
    defaults={
        "vocab_size": 151936,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "head_dim": 128,
        "seq_length": 8192,
        "layer_norm_epsilon": 1e-6,
    },
    built_in={"no_bias": True, "rotary_pct": 1.0},
    # of positions behind the context, of training, and of how it is run
    ignorable=keys(
        "max_position_embeddings use_dynamic_ntk use_logn_attn attn_dropout_prob emb_dropout_prob bf16 fp16 fp32",
        "onnx_safe use_flash_attn use_cache_quantization use_cache_kernel softmax_in_fp32",
    ),
    class_names=("QWenLMHeadModel",),
)
build = partial(
    decoder,
    names=Names(
        *("transformer.h", "attn", "c_proj", "mlp", "w1", "c_proj", "ln_1", "ln_2"), joined="c_attn", gate="w2"
    ),
    ends=Ends("transformer.wte.weight", "transformer.ln_f"),
)
