"""CodeGen 1 and 2: GPT-J with rows of q, v and k in one tensor, a quarter of the heads after the other."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS
from albireo.models.decoders import gpt2, gptj
from albireo.models.settings.block_settings import QUARTERS, BlockSettings

#: Two heads a quarter.
TINY = gptj.TINY | {
    "architectures": ["CodeGenForCausalLM"],
    "model_type": "codegen",
    "n_embd": 64,
    "n_head": 8,
    "rotary_dim": 4,
}


def _blocks(fields: Fields) -> BlockSettings:
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    if heads % QUARTERS:
        fields.fail("num_attention_heads", heads, f"must be a multiple of {QUARTERS}")
    return BlockSettings(is_layer_norm=True, ffn_bias=True, is_parallel=True, has_ffn_norm=False, joined="by_quarter")


CONFIG = ConfigRules(
    keys=keys("rotary_dim partial_rotary_factor"),
    names=gpt2.NAMES,
    blocks=_blocks,
    ffn_factor=4,
    has_pairs_side_by_side=True,
    activation="plain",
    defaults=gptj.DEFAULTS,
    ignorable=gptj.SUMMARIES,
    class_names=("CodeGenForCausalLM",),
)
build = partial(
    decoder,
    names=Names("transformer.h", "attn", "out_proj", "mlp", "fc_in", "fc_out", "ln_1", joined="qkv_proj"),
    ends=Ends("transformer.wte.weight", "transformer.ln_f", "lm_head"),
    has_head_bias=True,
)
