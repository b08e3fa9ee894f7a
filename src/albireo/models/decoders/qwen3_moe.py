"""Qwen 3 with experts (30B-A3B, 235B-A22B): Qwen 3's attention; experts in the layers that config.json says."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules
from albireo.models.decoders import qwen3

#: Eleven experts of 36 channels, three a token, renormalized; the first layer is dense.
TINY = qwen3.TINY | {
    "num_hidden_layers": 3,
    "tie_word_embeddings": False,
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 149,
    "max_window_layers": 3,
    "num_experts": 11,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [0],
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
}

CONFIG = ConfigRules(
    defaults={"num_key_value_heads": 4},
    keys=frozenset({"dual_chunk_attention_config", "attention_bias"}),
    windows="every_layer_if_used",
    experts="qwen",
    built_in={"use_qk_norm": True},
)
build = partial(decoder, ffn=moe_block, qk_norm=True)
