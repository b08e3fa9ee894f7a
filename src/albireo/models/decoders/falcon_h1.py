"""Falcon-H1 (0.5B to 34B): attention and Mamba 2 side by side in every layer, on one norm, and an FFN behind both;
numbers on most of what linears read and give.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import LLAMA_ENDS, attention, embedding, head, linear, norm, queries_keys_values
from albireo.models.blocks.mamba2_mixer import mamba_mixer
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.mamba_settings import MAMBA_DEFAULTS, MAMBA_KEYS, MambaSettings, parse_mamba
from albireo.models.settings.multipliers import Multipliers, parse_multipliers
from albireo.models.settings.tiny import TINY_LLAMA

#: Four heads of 12 share two of 8, fewer channels than the residual stream has twice; no multiplier is what it would be
#: by default.
TINY = TINY_LLAMA | {
    "architectures": ["FalconH1ForCausalLM"],
    "model_type": "falcon_h1",
    "vocab_size": 127,
    "hidden_size": 40,
    "intermediate_size": 52,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "projectors_bias": False,
    "rope_theta": 100000000000.0,
    "rope_scaling": None,
    "mamba_d_ssm": 48,
    "mamba_n_heads": 4,
    "mamba_d_head": 12,
    "mamba_n_groups": 2,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "mamba_rms_norm": False,
    "mamba_norm_before_gate": False,
    "embedding_multiplier": 5.6,
    "lm_head_multiplier": 0.4,
    "key_multiplier": 0.39,
    "attention_in_multiplier": 1.1,
    "attention_out_multiplier": 0.94,
    "ssm_in_multiplier": 1.25,
    "ssm_multipliers": [0.35, 0.75, 1.2, 0.6, 1.4],
    "ssm_out_multiplier": 0.24,
    "mlp_multipliers": [0.88, 0.59],
    "bos_token_id": 1,
}
#: Of any multiplier.
_LEAST, _MOST = 1e-6, 1e6
#: Of gates, values, b, c and how long a token counts.
_NUM_FACTORS = 5


def _blocks(fields: Fields) -> BlockSettings:
    for key in ("layer_types", "layers_block_type"):
        for kind in fields.texts(key):
            if kind != "hybrid":
                fields.unsupported(key, kind, "supported: hybrid")
    return BlockSettings(attends_everywhere=True)


def _mamba(fields: Fields) -> MambaSettings | None:
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    found = parse_mamba(
        fields, MAMBA_KEYS, (True,) * layers, MAMBA_DEFAULTS, expand="mamba_expand", width="mamba_d_ssm"
    )
    assert found is not None, "every layer keeps a state"
    if found.has_bias:
        fields.unsupported(MAMBA_KEYS.bias, True, "multipliers of linears with biases are not computed")
    return replace(
        found,
        has_norm=fields.flag("mamba_rms_norm", False),
        norms_first=fields.flag("mamba_norm_before_gate", True),
        factors=tuple(
            of * _number(fields, "ssm_in_multiplier") for of in _list(fields, "ssm_multipliers", _NUM_FACTORS)
        ),
        out_factor=_number(fields, "ssm_out_multiplier") / _list(fields, "mlp_multipliers", 2)[1],
    )


def _multipliers(fields: Fields, known: frozenset[str], built_in: Multipliers) -> Multipliers:
    """What an FFN adds is not multiplied: the residual stream is divided by its number, see blocks/layers.py."""
    of_gate, residual = _list(fields, "mlp_multipliers", 2)
    of_rows = _number(fields, "attention_in_multiplier")
    return replace(
        parse_multipliers(fields, known, built_in),
        residual=residual,
        scores=_number(fields, "key_multiplier") * of_rows**2,
        attention_out=_number(fields, "attention_out_multiplier") * of_rows / residual,
        gate=of_gate,
    )


def _number(fields: Fields, key: str) -> float:
    return fields.number(key, _LEAST, _MOST, default=1.0)


def _list(fields: Fields, key: str, count: int) -> tuple[float, ...]:
    if fields.raw(key) is None:
        return (1.0,) * count
    numbers = fields.numbers(key, _LEAST, _MOST)
    if len(numbers) != count:
        fields.fail(key, list(numbers), f"must be {count} numbers")
    return numbers


CONFIG = ConfigRules(
    keys=keys("embedding_multiplier logit_scale"),
    names={"logit_scale": "lm_head_multiplier"},
    defaults={
        "num_key_value_heads": 8,
        "max_position_embeddings": 8192,
        "mamba_d_ssm": 1024,
        "mamba_n_heads": 128,
        "rms_norm_eps": 1e-5,
    },
    blocks=_blocks,
    mamba=_mamba,
    own_multipliers=_multipliers,
    built_in={"mamba_use_mlp": True},
    # of training, and of how others run it
    ignorable=keys("mamba_chunk_size num_logits_to_keep mlp_expansion_factor time_step_min time_step_max")
    | keys("time_step_floor time_step_rank"),
    class_names=("FalconH1ForCausalLM",),
)
_ENDS = LLAMA_ENDS._replace(norm="model.final_layernorm")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, rope = GraphBuilder(), rope_spec(config, max_model_len)
    x = embedding(b, config, _ENDS)
    for layer in range(config.num_layers):
        x = _mixers(b, config, x, layer, rope)
        x = _ffn(b, config, x, layer)
    return head(b, config, x, _ENDS)


def _mixers(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec) -> Value:
    """x + what attention makes of norm(x) + what Mamba does."""
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.input_layernorm.weight", "norm")
        parts = queries_keys_values(b, c, h, f"{name}.self_attn", bias=False)
        a = attention(b, c, parts, layer, rope, None)
        o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", False, "row")
        with b.part("o"):
            x = b.add(x, _times(b, o, c.multipliers.attention_out))
        y = mamba_mixer(b, c, h, f"{name}.mamba")
        with b.part("out"):
            return b.add(x, y)


def _ffn(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    name, width = f"model.layers.{layer}.feed_forward", c.intermediate_size
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"model.layers.{layer}.pre_ff_layernorm.weight", "norm")
        gate, up = (linear(b, c, h, f"{name}.{p}_proj", width, p, False, "ffn") for p in ("gate", "up"))
        with b.part("act"):
            gate = b.unary(_times(b, gate, c.multipliers.gate), c.hidden_act)
            m = b.cast(b.mul(gate, up), c.dtype)
        down = linear(b, c, m, f"{name}.down_proj", c.hidden_size, "down", False, "row")
        with b.part("down"):
            return b.add(x, down)


def _times(b: GraphBuilder, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else b.scale(x, factor)
