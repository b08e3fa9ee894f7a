"""Gemma 3, text only: Gemma 2 without caps, each head of q and k normed, and rotations of their own for layers with a
window, which are five of six. EmbeddingGemma: the same without a head, whose tokens see both ways.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import AROUND_FFN, mlp_block
from albireo.models.blocks.layers import AROUND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import GEMMA

#: One KV head, the second layer without a window and with scaled rotation.
TINY = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": 139,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    "query_pre_attn_scalar": 24,
    "sliding_window": 21,
    "sliding_window_pattern": 2,
    "bos_token_id": 2,
    "eos_token_id": [1, 106],
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(sees_both_ways=fields.flag("use_bidirectional_attention", False))


CONFIG = ConfigRules(
    blocks=_blocks,
    keys=frozenset({"attention_bias", "query_pre_attn_scalar", "final_logit_softcapping"}),
    windows="periodic",
    period=6,
    head_dim=256,
    # files of models that take images too name few of these
    defaults={
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "rope_theta": 1000000.0,
    },
    activation="gelu_said",
    multipliers=GEMMA,
    has_local_rope=True,
    ignorable=frozenset({"_sliding_window_pattern"}),
    class_names=("Gemma3ForCausalLM", "Gemma3TextForCausalLM"),
)
build = partial(decoder, ffn=partial(mlp_block, norms=AROUND_FFN), norms=AROUND_ATTENTION, qk_norm=True)
