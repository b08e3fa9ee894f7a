"""Apertus 8B and 70B: llama with norms of each head of q and k and an FFN of two matrices, with xIELU."""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import Norms, linear, norm
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import of_said_rotation
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["ApertusForCausalLM"],
    "model_type": "apertus",
    "vocab_size": 127,
    "intermediate_size": 90,
    "rms_norm_eps": 1e-5,
    "hidden_act": "xielu",
    "attention_bias": False,
    "mlp_bias": False,
    "qk_norm": True,
    "post_norm": False,
    "rope_theta": 12000000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "bos_token_id": 1,
    "pad_token_id": 3,
}


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=of_said_rotation,
    activation="xielu",
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 12000000.0, "max_position_embeddings": 65536},
    built_in={"qk_norm": True},
)
#: Numbers that no training changes: the slope at 0, and from where on a logarithm of it is taken as nothing.
FIXED = {"model.layers.*.mlp.act_fn.beta": 0.5, "model.layers.*.mlp.act_fn.eps": -1e-6}
IGNORABLE_WEIGHTS = tuple(FIXED)


def _ffn(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + down(xielu(up(norm(x)))) of one layer, [T, E] float32."""
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"{name}.feedforward_layernorm.weight", "norm")
        m = linear(b, c, h, f"{name}.mlp.up_proj", c.intermediate_size, "up", False, "ffn")
        with b.part("act"):
            of_layer = f"{name}.mlp.act_fn"
            numbers = tuple(RowSegment(f"{of_layer}.{each}", 0, 1) for each in ("alpha_p", "alpha_n"))
            m = b.cast(b.xielu(m, b.weight(of_layer, (2,), "float32", segments=numbers)), c.dtype)
        down = linear(b, c, m, f"{name}.mlp.down_proj", c.hidden_size, "down", False, "row")
        with b.part("down"):
            return b.add(x, down)


build = partial(decoder, ffn=_ffn, norms=Norms("attention_layernorm"), qk_norm=True)
