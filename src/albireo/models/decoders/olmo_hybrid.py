"""OLMo Hybrid (7B): the gated delta rule in three layers of four, which may learn twice as much as in others; attention
of OLMo 3 in the fourth, which mostly does not rotate.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import BEHIND_FFN, mlp_block
from albireo.models.blocks.gated_delta import DeltaNames, gated_delta_block
from albireo.models.blocks.layers import BEHIND_ATTENTION, attention_block, embedding, head
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: Four heads of 8 for keys and of 12 for values.
TINY = TINY_LLAMA | {
    "architectures": ["OlmoHybridForCausalLM"],
    "model_type": "olmo_hybrid",
    "vocab_size": 109,
    "intermediate_size": 76,
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "linear_allow_neg_eigval": True,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_parameters": {"rope_theta": None, "rope_type": "default"},
    "pad_token_id": 0,
    "bos_token_id": None,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Where the base of the rotation is said to be none, there is no rotation."""
    table = fields.table("rope_parameters")
    if table is None and fields.has("rope_parameters"):
        fields.unsupported("rope_parameters", None, "say a rope_theta, or that it is null, where nothing is rotated")
    where = fields.raw("rope_theta") if table is None else table.get("rope_theta", 1.0)
    is_said = table is not None or fields.has("rope_theta")
    return BlockSettings(has_rotation=not is_said or where is not None)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=_blocks,
    recurrent="apart",
    defaults={"num_attention_heads": 30, "max_position_embeddings": 65536},
    # how weights began
    ignorable=keys("linear_a_log_min linear_a_log_max linear_dt_min linear_dt_max linear_dt_init_floor"),
)
_NAMES = DeltaNames("g_proj", "b_proj", "a_proj", "o_norm", "o_proj")
#: Of the norm behind the recurrence, whatever is said of others.
_EPS = 1e-5


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len) if all(config.rotates) else no_rotation(config)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        if layer not in config.cached_layers:
            x = gated_delta_block(b, config, x, layer, _NAMES, _EPS)
            x = mlp_block(b, config, x, layer)
            continue
        x = attention_block(b, config, x, layer, rope, qk_norm=True, is_norm_wide=True, norms=BEHIND_ATTENTION)
        x = mlp_block(b, config, x, layer, norms=BEHIND_FFN)
    return head(b, config, x)
