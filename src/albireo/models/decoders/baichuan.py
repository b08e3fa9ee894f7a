"""Baichuan 1 and 2, 7B and 13B: llama, whose queries, keys and values lie in one tensor.

Of 13B scores fall with distance, and nothing is rotated. Which of the two a file is of, its context says: that of 7B is
max_position_embeddings, of 13B it is model_max_length alone; and so does 13B's width, where other programs have written
both. Rows of Baichuan 2's head have length one (checkpoint/normed_head.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from albireo.json_file import Fields, keys
from albireo.models.blocks.alibi import slopes_of
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings

#: Of Baichuan 2 13B, with as many heads as are no power of two.
TINY = {
    "architectures": ["BaichuanForCausalLM"],
    "model_type": "baichuan",
    "vocab_size": 125,
    "hidden_size": 48,
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "model_max_length": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "z_loss_weight": 0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
#: Of 13B's residual stream.
_WIDTH = 5120


def _with_context(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """With the context of 13B by the name that others have. Raises: ModelError."""
    if data.get("max_position_embeddings") is not None:
        return {**data, "alibi": True} if data.get("hidden_size") == _WIDTH else data
    length = Fields(data, where).integer("model_max_length", 1, 2**28, default=4096)
    return {**data, "max_position_embeddings": length, "alibi": True}


def _blocks(fields: Fields) -> BlockSettings:
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    if not fields.flag("alibi", False):
        return BlockSettings(num_kv_heads=heads)
    return BlockSettings(num_kv_heads=heads, has_rotation=False, slopes=slopes_of(heads))


CONFIG = ConfigRules(
    rewritten=_with_context,
    blocks=_blocks,
    defaults={"vocab_size": 64000},
    ignorable=keys("z_loss_weight"),
    class_names=("BaichuanForCausalLM", "BaiChuanForCausalLM"),
)
build = partial(decoder, joined="W_pack", qkv_bias=False, o_bias=False)
