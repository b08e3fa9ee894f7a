"""Tiny models that ranks can share, and the graph and the program of each rank.

Used by the tests of tensor parallelism in every room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import PASSES, Pass, compile_graph, run_passes, shard_pass
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models import load_architecture
from albireo.models.config_keys import parse_config
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog
from tiny_layer_norm import with_changes
from variants import MIXED, tiny_of

#: Heads and channels that divide by eight, and inner sizes that a tree of eight leaves divides. There are two KV heads:
#: of four ranks, two share each. Vocabularies stay those of TINY, which divide by nothing.
WIDE = {
    "hidden_size": 96,
    "head_dim": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 112,
}
SIZES = (1, 2, 4, 8)
#: Widths of mixtures that are linears of their own: of what all tokens have, and of layers without experts.
_WHOLE = (
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "intermediate_size_mlp",
    "prefix_dense_intermediate_size",
    "shared_experts_intermediate_size",
    "ffn_hidden_size",
    "share_expert_dim",
    "expert_ffn_hidden_size",
)

#: Of experts beside an FFN.
_BESIDE = ("hidden_size", "num_attention_heads", "intermediate_size")


def wide_config(model_type: str, **changes: Any) -> dict[str, Any]:
    """config.json of an architecture's tiny model, made to be shared."""
    tiny, wide = load_architecture(model_type).tiny, dict[str, Any](WIDE)
    if "kv_lora_rank" in tiny:  # whose heads all have keys, as wide as latents and rotated channels say
        del wide["head_dim"]
        wide["num_key_value_heads"] = WIDE["num_attention_heads"]
    elif model_type == "jetmoe":  # as many heads for each expert of a token
        wide |= {"kv_channels": wide.pop("head_dim"), "num_key_value_heads": 8, "num_attention_heads": 24}
    elif "v_head_dim" in tiny:
        wide["v_head_dim"] = 8
    if "ffn_hidden_size" in tiny:  # the same by another name
        del wide["intermediate_size"]
    if model_type == "dots3_note_text":
        wide |= {"swa_num_attention_heads": 8, "swa_num_key_value_heads": 8}
    if "num_sliding_attention_heads" in tiny:
        wide["num_sliding_attention_heads"] = 2 * WIDE["num_attention_heads"]
    if "num_attention_heads_per_layer" in tiny:
        wide["num_attention_heads_per_layer"] = [2 * WIDE["num_attention_heads"], WIDE["num_attention_heads"]] * 8
        del wide["num_attention_heads_per_layer"][tiny["num_hidden_layers"] :]
    return with_changes(tiny, {**wide, **changes})


def wide_mixture(model_type: str, **changes: Any) -> dict[str, Any]:
    """The same of a mixture of experts."""
    if model_type in MIXED:
        return tiny_of(model_type) | {key: WIDE[key] for key in _BESIDE} | changes
    widths = {key: 48 for key in _WHOLE if load_architecture(model_type).tiny.get(key)}
    return wide_config(model_type, **{**widths, **changes})


#: Of which each KV head chooses what it sees, which ranks do not share yet.
CHOOSING_BY_HEADS = ("minimax_m3_vl_text",)
#: What else is said of layers that keep a state, so that heads divide: of keys by two or four, of values by eight.
STATES: dict[str, dict[str, Any]] = {
    "qwen3_next": {"head_dim": 16, "linear_num_key_heads": 4, "linear_num_value_heads": 8},
    "qwen3_5_text": {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 8},
    "qwen3_5_moe_text": {"head_dim": 16, "linear_num_key_heads": 8, "linear_num_value_heads": 8},
    "olmo_hybrid": {"linear_num_key_heads": 8, "linear_num_value_heads": 8, "linear_value_head_dim": 12},
    "lfm2": {"conv_dim": 96, "conv_dim_out": 96, "block_dim": 96, "num_heads": 8, "block_ff_dim": 168},
    "lfm2_moe": {},
    "lfm3": {},
    "nemotron_h": {"mamba_num_heads": 8, "mamba_head_dim": 20, "n_groups": 4},
    "falcon_h1": {"mamba_d_ssm": 96, "mamba_n_heads": 8, "mamba_d_head": 12, "mamba_n_groups": 2},
    "zamba2": {"attention_head_dim": 24, "attention_hidden_size": 192, "kv_channels": 12, "num_query_groups": 8}
    | {"num_key_value_heads": 8, "n_mamba_heads": 8, "mamba_headdim": 24, "mamba_ngroups": 2},
    # a norm of all heads: each rank computes the layers whole
    "bamba": {"mamba_n_heads": 8},
    "granitemoehybrid": {"mamba_n_heads": 8, "mamba_d_head": 24},
    # what channels read of a token is made of all of them: likewise
    "jamba": {},
    # rates of channels are made in two steps: likewise
    "kimi_linear": {},
    "bailing_hybrid": {},
    # entries of several positions are those of all heads: likewise
    "deepseek_v4": {"num_key_value_heads": 1},
    "glm5_next_text": {},
    "qwen4_exp_text": {"head_dim": 16, "linear_num_key_heads": 8, "linear_num_value_heads": 8},
    "lara_mini": {"head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 8},
    # a norm of all heads: likewise
    **{name: {} for name in ("minimax", "minimax_m1", "minimax_text_01")},
    # convolutions of queries and keys are of all heads: likewise
    "zaya": {},
}


def wide_hybrid(model_type: str, **changes: Any) -> dict[str, Any]:
    """The same of a model of which some layers keep a state."""
    config = wide_mixture(model_type, **{**STATES[model_type], **changes})
    missing = {"intermediate_size", "head_dim"} - set(load_architecture(model_type).tiny)
    return {key: value for key, value in config.items() if key not in missing}


def wide_graph(config: Mapping[str, Any], dtype: str = "float32") -> Graph:
    """The base graph of such a config."""
    architecture = load_architecture(config["model_type"])
    return architecture.build(parse_config(dict(config), architecture.rules).with_dtype(dtype), MAX_POSITIONS)


def rank_graphs(graph: Graph, size: int, passes: Sequence[Pass] = PASSES) -> list[Graph]:
    """The graph of each rank behind the given passes; a rank that is alone adds in the order of several."""
    return [run_passes(graph, (shard_pass(Part(size, rank)), *passes))[0] for rank in range(size)]


def compile_rank(graph: Graph, part: Part) -> Program:
    return compile_graph(
        graph, FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS, part=part
    )
