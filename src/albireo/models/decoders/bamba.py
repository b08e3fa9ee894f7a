"""Bamba (9B): layers of Mamba 2 and a few with attention, half of whose heads' channels are rotated; an FFN in each."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import FFNNames, mlp_block
from albireo.models.blocks.layers import LLAMA_ENDS, Norms
from albireo.models.blocks.mamba2_mixer import mamba_block
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.mamba_settings import MAMBA_DEFAULTS, MAMBA_KEYS, MambaSettings, parse_mamba
from albireo.models.settings.tiny import TINY_LLAMA

#: Four heads of 20, which share one of 12; of heads of 12 channels 6 are rotated.
TINY = TINY_LLAMA | {
    "architectures": ["BambaForCausalLM"],
    "model_type": "bamba",
    "vocab_size": 113,
    "hidden_size": 40,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "head_dim": 12,
    "attn_layer_indices": [2],
    "attn_rotary_emb": 6,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "mamba_n_heads": 4,
    "mamba_d_head": "auto",
    "mamba_n_groups": 1,
    "mamba_d_state": 12,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "bos_token_id": 1,
}

#: Whatever a file says, as its class has it.
_ROTATED = 0.5
_WORDS = {"linear_attention": True, "mamba": True, "full_attention": False, "attention": False}


def _blocks(fields: Fields) -> BlockSettings:
    given = fields.optional_number("partial_rotary_factor", 0.0, 1.0)
    if given not in (None, _ROTATED):
        fields.unsupported("partial_rotary_factor", given, f"it must be {_ROTATED}")
    rotated, head_dim = fields.optional_integer("attn_rotary_emb", 2, 2**12), fields.raw("head_dim")
    if rotated is not None and isinstance(head_dim, int) and rotated != int(head_dim * _ROTATED):
        fields.unsupported("attn_rotary_emb", rotated, f"it must be {int(head_dim * _ROTATED)}, half of head_dim")
    return BlockSettings()


def _mamba(fields: Fields) -> MambaSettings | None:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    attending = fields.raw("attn_layer_indices") or []
    if not isinstance(attending, list) or not all(type(i) is int and 0 <= i < layers for i in attending):
        fields.fail("attn_layer_indices", attending, f"must be a list of layers, from 0 to {layers - 1}")
    found = tuple(i not in attending for i in range(layers))
    for key in ("layers_block_type", "layer_types"):
        kinds = fields.texts(key)
        if kinds and tuple(_WORDS.get(kind) for kind in kinds) != found:
            fields.fail(key, list(kinds), "contradicts attn_layer_indices")
    return parse_mamba(fields, MAMBA_KEYS, found, MAMBA_DEFAULTS, expand="mamba_expand")


CONFIG = ConfigRules(
    keys=keys("attention_bias mlp_bias partial_rotary_factor"),
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 262144,
        "mamba_n_heads": 128,
        "rms_norm_eps": 1e-5,
        "partial_rotary_factor": _ROTATED,
    },
    blocks=_blocks,
    mamba=_mamba,
    ignorable=keys("mamba_chunk_size num_logits_to_keep z_loss_coefficient use_mamba_kernels"),
)
_ENDS = LLAMA_ENDS._replace(norm="model.final_layernorm")
_NORMS, _FFN = Norms("pre_ff_layernorm"), FFNNames("feed_forward")
build = partial(decoder, ffn=partial(mlp_block, norms=_NORMS, names=_FFN), state=mamba_block, ends=_ENDS)
