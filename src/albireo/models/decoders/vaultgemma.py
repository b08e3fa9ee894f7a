"""VaultGemma: Gemma 2 without norms of what is added."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import Norms, mlp_block
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
build = partial(decoder, ffn=partial(mlp_block, norms=Norms("pre_feedforward_layernorm")))
