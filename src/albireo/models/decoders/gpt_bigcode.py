"""StarCoder 1, SantaCoder: GPT-2 with one key and value for all heads, matrices that lie as they are multiplied."""

from __future__ import annotations

from albireo.json_file import Fields, keys
from albireo.models.config import ConfigRules
from albireo.models.decoders import gpt2
from albireo.models.settings.block_settings import BlockSettings

TINY = gpt2.TINY | {
    "architectures": ["GPTBigCodeForCausalLM"],
    "model_type": "gpt_bigcode",
    "n_inner": 80,
    "activation_function": "gelu_pytorch_tanh",
    "multi_query": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    is_shared = fields.flag("multi_query", True)
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        num_kv_heads=1 if is_shared else None,
        joined="no" if is_shared else "by_group",
    )


CONFIG = ConfigRules(
    names=gpt2.NAMES,
    blocks=_blocks,
    ffn_factor=4,
    has_rope=False,
    activation="plain",
    defaults={
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
    # scores are summed and compared in float32 anyway; what multi_query says of heads is said twice
    ignorable=keys(
        "attention_softmax_in_fp32 scale_attention_softmax_in_fp32 num_key_value_heads n_ctx auto_map",
        "inference_runner validate_runner_input pre_allocate_kv_cache max_batch_size pad_key_length",
        "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
    ),
    class_names=("GPTBigCodeForCausalLM",),
)
build = gpt2.build
