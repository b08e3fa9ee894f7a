"""VaultGemma: Gemma 2 without norms of what is added."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import Norms
from albireo.models.decoders import gemma2

TINY = gemma2.TINY | {
    "architectures": ["VaultGemmaForCausalLM"],
    "model_type": "vaultgemma",
    "num_hidden_layers": 2,
}

CONFIG = replace(gemma2.CONFIG, class_names=("VaultGemmaForCausalLM",))
build = partial(decoder, ffn=partial(mlp_block, norms=Norms("pre_feedforward_layernorm")))
