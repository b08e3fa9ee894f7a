"""ChatGLM 2 and 3 6B, and GLM-4 9B as it was published: glm, whose q, k and v lie in one tensor, under other names."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.rope_settings import DEFAULT_THETA, MAX_THETA

TINY = {
    "architectures": ["ChatGLMModel"],
    "model_type": "chatglm",
    "padded_vocab_size": 113,
    "vocab_size": 113,
    "hidden_size": 48,
    "ffn_hidden_size": 76,
    "num_layers": 2,
    "num_attention_heads": 4,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "kv_channels": 12,
    "original_rope": True,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "fp32_residual_connection": False,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "rope_ratio": 50,
    "seq_length": 128,
    "layernorm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


#: Whose code divides positions by rope_ratio; that of the later ones multiplies the base by it. Files say it by their
#: names alone.
_DIVIDING = ("chatglm2", "codegeex2")


def _with_base(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """With the base of the rotation, or how far it is stretched, and how many heads keys have. Raises: ModelError."""
    fields = Fields(data, where)
    ratio = fields.number("rope_ratio", 1e-3, MAX_THETA / DEFAULT_THETA, default=1.0)
    found = {key: value for key, value in data.items() if key != "rope_ratio"}
    if not fields.flag("multi_query_attention", False):
        found["multi_query_group_num"] = fields.integer("num_attention_heads", 1, MAX_HEADS, default=32)
    if ratio != 1 and any(name in str(data.get("_name_or_path")).lower() for name in _DIVIDING):
        return {**found, "rope_scaling": {"rope_type": "linear", "factor": ratio}}
    return {**found, "rope_theta": DEFAULT_THETA * ratio}


def _blocks(fields: Fields) -> BlockSettings:
    """Without groups, q, k and v lie head by head."""
    bias, has_groups = fields.flag("add_bias_linear", False), fields.flag("multi_query_attention", False)
    return BlockSettings(
        qkv_bias=fields.flag("add_qkv_bias", False) or bias,
        o_bias=bias,
        ffn_bias=bias,
        joined="no" if has_groups else "by_group",
    )


CONFIG = ConfigRules(
    keys=frozenset({"partial_rotary_factor"}),
    names={
        "vocab_size": "padded_vocab_size",
        "intermediate_size": "ffn_hidden_size",
        "num_hidden_layers": "num_layers",
        "num_key_value_heads": "multi_query_group_num",
        "head_dim": "kv_channels",
        "max_position_embeddings": "seq_length",
        "rms_norm_eps": "layernorm_epsilon",
    },
    rewritten=_with_base,
    blocks=_blocks,
    defaults={
        "padded_vocab_size": 65024,
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "num_layers": 28,
        "num_attention_heads": 32,
        "multi_query_group_num": 1,
        "kv_channels": 128,
        "seq_length": 2048,
        "layernorm_epsilon": 1e-5,
        "partial_rotary_factor": 0.5,
    },
    built_in={"original_rope": True, "rmsnorm": True, "post_layer_norm": True},
    has_pairs_side_by_side=True,
    # the first cancels itself; of training, of how it is run, and of a beginning that is learned
    ignorable=keys(
        "apply_query_key_layer_scaling attention_softmax_in_fp32 bias_dropout_fusion fp32_residual_connection",
        "classifier_dropout vocab_size",
    ),
    class_names=("ChatGLMForConditionalGeneration", "ChatGLMModel", "ChatGLMForCausalLM"),
)
IGNORABLE_WEIGHTS = ("transformer.rotary_pos_emb.inv_freq",)
build = partial(
    decoder,
    names=Names(
        *("transformer.encoder.layers", "self_attention", "dense", "mlp", None, "dense_4h_to_h"),
        joined="query_key_value",
        joined_ffn="dense_h_to_4h",
    ),
    ends=Ends(
        *("transformer.embedding.word_embeddings.weight", "transformer.encoder.final_layernorm"),
        "transformer.output_layer",
    ),
)
