"""OPT, Galactica: learned positions, ReLU, biases."""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, Positions, decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "vocab_size": 127,
    "hidden_size": 48,
    "word_embed_proj_dim": 48,
    "ffn_dim": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "layer_norm_elementwise_affine": False,
    "tie_word_embeddings": True,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": 1,
    "torch_dtype": "float32",
}

#: Rows of the table of positions that stand for padding, before the first position's.
_OFFSET = 2


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for norms behind blocks, and for embeddings narrower than the residual stream."""
    if not fields.flag("do_layer_norm_before", True):
        fields.unsupported("do_layer_norm_before", False, "norms of what was added (OPT-350m) are not computed")
    width = fields.integer("hidden_size", 1, MAX_WIDTH)
    if fields.integer("word_embed_proj_dim", 1, MAX_WIDTH, default=width) != width:
        given = fields.raw("word_embed_proj_dim")
        fields.unsupported("word_embed_proj_dim", given, f"supported: that of hidden_size={width}")
    bias, is_affine = fields.flag("enable_bias", True), fields.flag("layer_norm_elementwise_affine", True)
    return BlockSettings(
        is_layer_norm=True,
        has_norm_weight=is_affine,
        has_norm_bias=is_affine,
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=bias,
    )


CONFIG = ConfigRules(
    names={"intermediate_size": "ffn_dim", "hidden_act": "activation_function", "rms_norm_eps": "layer_norm_eps"},
    blocks=_blocks,
    has_rope=False,
    activation="plain",
    defaults={
        "activation_function": "relu",
        "max_position_embeddings": 2048,
        "layer_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
    built_in={"learned_embeddings": True, "output_projection": True},  # of Galactica, and of OPT
    ignorable=keys("dropout layerdrop init_std activation_dropout"),
    class_names=("OPTForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    names = Names(
        "model.decoder.layers", "self_attn", "out_proj", "", "fc1", "fc2", "self_attn_layer_norm", "final_layer_norm"
    )
    ends = Ends("model.decoder.embed_tokens.weight", "model.decoder.final_layer_norm")
    positions = Positions("model.decoder.embed_positions.weight", _OFFSET)
    return decoder(config, max_model_len, names, ends, positions=positions)
