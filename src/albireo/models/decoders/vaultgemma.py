"""VaultGemma: Gemma 2 without norms of what is added.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import Norms, attention_block, embedding, head, mlp_block, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ModelConfig
from albireo.models.decoders import gemma2

TINY = {
    "architectures": ["VaultGemmaForCausalLM"],
    "model_type": "vaultgemma",
    "vocab_size": 137,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 24,
    "sliding_window": 19,
    "attn_logit_softcapping": 2.5,
    "final_logit_softcapping": 1.5,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}

CONFIG = replace(gemma2.CONFIG, class_names=("VaultGemmaForCausalLM",))


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        x = attention_block(b, config, x, layer, rope, window=window, qkv_bias=bias, o_bias=bias)
        x = mlp_block(b, config, x, layer, norms=Norms("pre_feedforward_layernorm"))
    return head(b, config, x)
