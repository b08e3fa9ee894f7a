"""Mamba 2 (130M to 2.7B), Codestral Mamba: layers of Mamba 2 alone, so that a sequence has a state and no KV cache."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends, embedding, head, norm
from albireo.models.blocks.mamba2_mixer import mamba_mixer
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.mamba_settings import MambaKeys, MambaSettings, parse_mamba

#: Four heads of 20, which share two of 12.
TINY = {
    "architectures": ["Mamba2ForCausalLM"],
    "model_type": "mamba2",
    "vocab_size": 131,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "num_heads": 4,
    "head_dim": 20,
    "n_groups": 2,
    "state_size": 12,
    "conv_kernel": 4,
    "expand": 2,
    "use_conv_bias": True,
    "use_bias": False,
    "hidden_act": "silu",
    "layer_norm_epsilon": 1e-5,
    "residual_in_fp32": True,
    "rms_norm": True,
    "time_step_limit": [0.0, float("inf")],
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

_KEYS = MambaKeys("num_heads", "head_dim", "n_groups", "state_size", "conv_kernel", "use_conv_bias", "use_bias")
_DEFAULTS = MambaSettings((), 128, 64, 8, 128, 4, True, False)


def _mamba(fields: Fields) -> MambaSettings | None:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    return parse_mamba(fields, _KEYS, (True,) * layers, _DEFAULTS, expand="expand")


def _blocks(fields: Fields) -> BlockSettings:
    """There are no FFNs; what is called so is how many channels values have."""
    hidden = fields.integer("hidden_size", 1, MAX_WIDTH)
    width = fields.integer("expand", 1, 64, default=2) * hidden
    given = fields.optional_integer("intermediate_size", 1, MAX_WIDTH)
    if given not in (None, width):
        fields.unsupported("intermediate_size", given, f"it must be expand * hidden_size = {width}")
    return BlockSettings(ffn_width=width, has_rotation=False)


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_epsilon"},
    defaults={
        "num_attention_heads": 1,
        # nothing ends with a number of positions
        "max_position_embeddings": 262144,
        "layer_norm_epsilon": 1e-5,
        "num_heads": 128,
        "head_dim": 64,
    },
    blocks=_blocks,
    mamba=_mamba,
    has_rope=False,
    built_in={"rms_norm": True},
    # of training, of how others run it; our residual stream is float32; gates come before norms whatever
    # norm_before_gate says, which transformers' class does not read and Codestral's file has wrong
    ignorable=keys(
        "norm_before_gate",
        "time_step_min time_step_max time_step_floor time_step_rank time_step_scale time_step_init_scheme",
        "rescale_prenorm_residual residual_in_fp32 chunk_size emb_initializer_range conv_init",
    ),
    class_names=("Mamba2ForCausalLM",),
)
_ENDS = Ends("backbone.embeddings.weight", "backbone.norm_f", "lm_head")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    x = embedding(b, config, _ENDS)
    for layer in range(config.num_layers):
        name = f"backbone.layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            h = norm(b, config, x, f"{name}.norm.weight", "norm")
            y = mamba_mixer(b, config, h, f"{name}.mixer")
            with b.part("out"):
                x = b.add(x, y)
    return head(b, config, x, _ENDS)
