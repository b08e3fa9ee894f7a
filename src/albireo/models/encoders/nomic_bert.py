"""Nomic BERT: BERT that rotates, with a gate in its FFN and no biases; nomic-embed-text."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import Names, encoder
from albireo.models.config import ConfigRules
from albireo.models.encoders import bert
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import PoolingRule

TINY = bert.TINY | {
    "architectures": ["NomicBertModel"],
    "model_type": "nomic_bert",
    "hidden_act": "silu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
}
NAMES = Names(
    "layers",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.up_proj",
    "mlp.down_proj",
    "post_mlp_layernorm",
    "mlp.gate_proj",
)
IGNORABLE_WEIGHTS = bert.IGNORABLE_WEIGHTS
#: What the files say whose code is in their directory (it is never run), and transformers' do not.
_PUBLISHED = keys(
    "auto_map activation_function n_positions pad_vocab_size_multiple dense_seq_output",
    # how that code runs, and is trained
    "fused_bias_fc fused_dropout_add_ln use_flash_attn use_xentropy reorder_and_upcast_attn",
    "summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj",
    # of sequences longer than those of training, which are refused
    "rotary_scaling_factor",
)


def _blocks(fields: Fields) -> BlockSettings:
    fields.one_of("activation_function", ("swiglu",), "swiglu")
    return BlockSettings(
        is_layer_norm=True,
        sees_both_ways=True,
        has_positions=False,
        num_token_types=fields.integer("type_vocab_size", 0, 2**16, default=2),
    )


def _pooled(fields: Fields, name: str) -> PoolingRule:
    return bert.pooled(fields, name.replace("Nomic", ""))


CONFIG = ConfigRules(
    names=bert.CONFIG.names,
    older_names={
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
        "n_inner": "intermediate_size",
        "layer_norm_epsilon": "layer_norm_eps",
        "max_trained_positions": "max_position_embeddings",
        "rotary_emb_base": "rope_theta",
    },
    blocks=_blocks,
    pooled=_pooled,
    activation="exact_gate",
    built_in={"rotary_emb_fraction": 1.0, "use_rms_norm": False},
    defaults={
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 30528,
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-12,
        "hidden_act": "silu",
        "rope_theta": 1000.0,
    },
    ignorable=bert.IGNORED | _PUBLISHED,
    class_names=("NomicBertModel", "NomicBertForSequenceClassification", "NomicBertForMaskedLM"),
)


build = partial(encoder, names=NAMES, rotates=True)
