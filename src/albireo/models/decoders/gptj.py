"""GPT-J: attention and FFN read one norm, a part of each head rotated in pairs side by side, a head with a bias."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders import gpt2
from albireo.models.settings.block_settings import BlockSettings

TINY = gpt2.TINY | {
    "architectures": ["GPTJForCausalLM"],
    "model_type": "gptj",
    "vocab_size": 121,
    "rotary_dim": 8,
    "tie_word_embeddings": False,
}


#: Also of CodeGen.
DEFAULTS = {
    "n_positions": 2048,
    "rotary_dim": 64,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "gelu_new",
}
SUMMARIES = keys(
    "n_ctx rotary",
    "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout",
)
CONFIG = ConfigRules(
    keys=keys("rotary_dim partial_rotary_factor"),
    names=gpt2.NAMES,
    blocks=BlockSettings(is_layer_norm=True, ffn_bias=True, is_parallel=True, has_ffn_norm=False),
    ffn_factor=4,
    has_pairs_side_by_side=True,
    activation="plain",
    defaults=DEFAULTS,
    ignorable=SUMMARIES,
    class_names=("GPTJForCausalLM",),
)
build = partial(
    decoder,
    names=Names("transformer.h", "attn", "out_proj", "mlp", "fc_in", "fc_out", "ln_1"),
    ends=Ends("transformer.wte.weight", "transformer.ln_f", "lm_head"),
    has_head_bias=True,
)
