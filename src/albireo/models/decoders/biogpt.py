"""BioGPT: learned positions behind two rows of padding, embeddings times the root of their width."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, Positions, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers

TINY = {
    "architectures": ["BioGptForCausalLM"],
    "model_type": "biogpt",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "hidden_act": "gelu",
    "scale_embedding": True,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "torch_dtype": "float32",
}

#: Rows of the table of positions that stand for padding, before the first position's.
_OFFSET = 2


def _multipliers(fields: Fields, known: frozenset[str], default: Multipliers) -> Multipliers:
    is_scaled = fields.flag("scale_embedding", True)
    return Multipliers(embedding=fields.integer("hidden_size", 1, MAX_WIDTH) ** 0.5 if is_scaled else 1.0)


CONFIG = ConfigRules(
    blocks=BlockSettings(is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True),
    own_multipliers=_multipliers,
    has_rope=False,
    activation="plain",
    # its class gives norms no eps but PyTorch's, whatever layer_norm_eps says
    defaults={"rms_norm_eps": 1e-5, "hidden_act": "gelu", "max_position_embeddings": 1024, "tie_word_embeddings": True},
    ignorable=keys("layer_norm_eps activation_dropout layerdrop auto_map"),
    class_names=("BioGptForCausalLM",),
)
build = partial(
    decoder,
    names=Names("biogpt.layers", "self_attn", "out_proj", "", "fc1", "fc2", "self_attn_layer_norm", "final_layer_norm"),
    ends=Ends("biogpt.embed_tokens.weight", "biogpt.layer_norm", "output_projection"),
    positions=Positions("biogpt.embed_positions.weight", _OFFSET),
)
