"""Families of models that were published with code of their own, as transformers' classes have their layers.

Imported by transformers_models.py. Sources: the code that the models were published with, and vLLM's.
"""

from __future__ import annotations

from typing import Any

from transformers_published import Joined, Layout, publish

_QKV = ("q_proj", "k_proj", "v_proj")
_GATE_UP = ("gate_proj", "up_proj")


def _chatglm(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": said["padded_vocab_size"],
        "hidden_size": said["hidden_size"],
        "intermediate_size": said["ffn_hidden_size"],
        "num_hidden_layers": said["num_layers"],
        "num_attention_heads": said["num_attention_heads"],
        "num_key_value_heads": said["multi_query_group_num"],
        "head_dim": said["kv_channels"],
        "rms_norm_eps": said["layernorm_epsilon"],
        "attention_bias": said["add_qkv_bias"],
        "max_position_embeddings": said["seq_length"],
        "rope_theta": 1e4 * said["rope_ratio"],
    }


publish(
    "chatglm",
    "ChatGLMForConditionalGeneration",
    "Glm",
    {
        **{"padded_vocab_size": 65024, "hidden_size": 4096, "ffn_hidden_size": 13696, "num_layers": 28},
        **{"num_attention_heads": 32, "multi_query_group_num": 1, "kv_channels": 128, "layernorm_epsilon": 1e-5},
        **{"add_qkv_bias": False, "seq_length": 2048, "rope_ratio": 1, "multi_query_attention": False},
    },
    _chatglm,
    Layout(
        {
            "model.embed_tokens": "transformer.embedding.word_embeddings",
            "model.layers": "transformer.encoder.layers",
            "model.norm": "transformer.encoder.final_layernorm",
            "lm_head": "transformer.output_layer",
            "self_attn.o_proj": "self_attention.dense",
            "self_attn.": "self_attention.",
            "mlp.gate_up_proj": "mlp.dense_h_to_4h",
            "mlp.down_proj": "mlp.dense_4h_to_h",
        },
        (Joined("query_key_value", _QKV),),
    ),
)


def _qwen(said: dict[str, Any]) -> dict[str, Any]:
    return {
        **{key: said[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")},
        "num_key_value_heads": said["num_attention_heads"],
        "intermediate_size": said["intermediate_size"] // 2,
        "rms_norm_eps": said["layer_norm_epsilon"],
        "max_position_embeddings": said["seq_length"],
        "rope_theta": said["rotary_emb_base"],
    }


publish(
    "qwen",
    "QWenLMHeadModel",
    "Qwen2",
    {
        **{"vocab_size": 151936, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32},
        **{"intermediate_size": 22016, "layer_norm_epsilon": 1e-6, "seq_length": 8192, "rotary_emb_base": 10000},
        **{"kv_channels": 128, "no_bias": True},
    },
    _qwen,
    Layout(
        {
            "model.embed_tokens": "transformer.wte",
            "model.layers": "transformer.h",
            "model.norm": "transformer.ln_f",
            "self_attn.o_proj": "attn.c_proj",
            "self_attn.": "attn.",
            "mlp.up_proj": "mlp.w1",
            "mlp.gate_proj": "mlp.w2",
            "mlp.down_proj": "mlp.c_proj",
            "input_layernorm": "ln_1",
            "post_attention_layernorm": "ln_2",
        },
        (Joined("c_attn", _QKV),),
    ),
)
