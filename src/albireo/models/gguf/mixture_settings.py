"""Settings of a GGUF file of a mixture of experts, as the keys that its config.json has.

Named by the tables. Whether weights are renormalized, and what scores are, llama.cpp knows of most
architectures, and few files say it: it is written down here. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.own_settings import biases, granite_multipliers, layer_types, without_places
from albireo.models.gguf.stored import MAX, Stored, optional_scale, rows_of, window_of

#: expert_gating_func.
SOFTMAX, SIGMOID = 1, 2


def mixtral(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """A Llama with experts is a Mixtral."""
    return {**counts(fields), "model_type": "mixtral"} if fields.raw("expert_count") else {}


def counts(fields: Fields) -> dict[str, Any]:
    """How many experts there are, and how many a token has."""
    return {
        "num_local_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
    }


def gpt_oss(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    rope = config["rope_parameters"]
    own = {"truncate": False} if rope.get("rope_type") == "yarn" else {}
    return {
        **counts(fields),
        "intermediate_size": width_of_one(fields, config["intermediate_size"]),
        "attention_bias": True,
        "sliding_window": window_of(fields),
        "rope_parameters": rope | own,
    }


def width_of_one(fields: Fields, default: int) -> int:
    """Channels of an expert."""
    return fields.integer("expert_feed_forward_length", 1, MAX, default=default)


def qwen3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    without_places(fields)
    return {**counts(fields), **_of_qwen(fields, file, config), "norm_topk_prob": True}


def qwen2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    shared = {"shared_expert_intermediate_size": shared_width(fields, file)}
    own = {**counts(fields), **_of_qwen(fields, file, config), **shared}
    return own | {"norm_topk_prob": False, "use_sliding_window": False}


def shared_width(fields: Fields, file: Stored) -> int:
    """Channels of the shared expert."""
    rows = rows_of(file, ".shared_expert.up_proj.weight")
    return fields.integer("expert_shared_feed_forward_length", 1, MAX, default=rows)


def _of_qwen(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    layers = range(config["num_hidden_layers"])
    return {
        "moe_intermediate_size": width_of_one(fields, rows_of(file, ".mlp.experts.0.up_proj.weight")),
        "mlp_only_layers": [i for i in layers if f"model.layers.{i}.mlp.gate.weight" not in file],
    }


def olmoe(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {**counts(fields), "norm_topk_prob": False}


def granite(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    own = {**counts(fields), **granite_multipliers(fields, config)}
    shared = fields.optional_integer("expert_shared_feed_forward_length", 0, MAX)
    return own | ({"model_type": "granitemoeshared", "shared_intermediate_size": shared} if shared else {})


def minimax(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    check_scores(fields, SIGMOID)
    return {**counts(fields), "intermediate_size": width_of_one(fields, config["intermediate_size"])}


def ernie(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    check_scores(fields, SOFTMAX)
    fields.raw("expert_shared_feed_forward_length")  # of which converters write something else
    return {
        "moe_num_experts": fields.integer("expert_count", 1, MAX),
        "moe_k": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
        "moe_num_shared_experts": fields.integer("expert_shared_count", 0, MAX, default=0),
        "moe_layer_start_index": fields.integer("leading_dense_block_count", 0, MAX, default=0),
        "moe_layer_interval": fields.integer("interleave_moe_layer_step", 1, MAX, default=1),
    }


def dots1(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    check_scores(fields, SIGMOID)
    return {**of_deepseek(fields), "use_sliding_window": False}


def exaone(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """K-EXAONE."""
    return {**_ling(fields), "sliding_window": window_of(fields), **layer_types(fields, config, 4)}


def ling(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ling 2.0, Ring 2.0, and Sarvam 30B, whose experts are all in one group."""
    return {**_ling(fields), "use_qk_norm": "model.layers.0.attention.query_layernorm.weight" in file}


def cohere2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Command with experts. What all experts give, and shared ones, is halved where there are shared ones."""
    scores = fields.integer("expert_gating_func", 0, MAX, default=SIGMOID) or SIGMOID
    if scores not in (SOFTMAX, SIGMOID):
        fields.unsupported("expert_gating_func", scores, f"supported: {SOFTMAX}, {SIGMOID}")
    if (factor := optional_scale(fields, "expert_weights_scale") or 1.0) != 1.0:
        fields.unsupported("expert_weights_scale", factor, "supported: 1")
    theta, key = config["rope_parameters"]["rope_theta"], "rope.freq_base_swa"
    if fields.number(key, 1.0, 1e15, default=theta) != theta:
        fields.unsupported(key, fields.raw(key), f"supported: {theta}, as of all layers")
    width = fields.integer("expert_feed_forward_length", 1, MAX)
    shared = fields.integer("expert_shared_count", 0, MAX, default=0)
    key = "expert_shared_feed_forward_length"
    if fields.integer(key, 0, MAX, default=shared * width) != shared * width:
        fields.unsupported(key, fields.raw(key), f"supported: {shared * width}")
    own = {
        "num_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
        "intermediate_size": width,
        "prefix_dense_intermediate_size": config["intermediate_size"],
        "first_k_dense_replace": fields.integer("leading_dense_block_count", 0, MAX),
        "num_shared_experts": shared,
        "shared_expert_combination_strategy": "average",
        "expert_selection_fn": "softmax" if scores == SOFTMAX else "sigmoid",
        "norm_topk_prob": fields.flag("expert_weights_norm", False),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in file,
        "logit_scale": optional_scale(fields, "logit_scale"),
        "sliding_window": window_of(fields),
        **layer_types(fields, config, 4),
    }
    if fields.raw("attention.layer_norm_epsilon") is None:
        own["rms_norm_eps"] = config["rms_norm_eps"]
    else:
        own |= {"rms_norm_eps": None, "layer_norm_eps": config["rms_norm_eps"]}
    return own


def _ling(fields: Fields) -> dict[str, Any]:
    """Raises: UnsupportedModel for a shared expert of another width than as many others."""
    check_scores(fields, SIGMOID)
    own, key = of_deepseek(fields), "expert_shared_feed_forward_length"
    width = own["moe_intermediate_size"] * max(own["n_shared_experts"], 1)
    if fields.integer(key, 0, MAX, default=width) not in (own["moe_intermediate_size"], width):
        fields.unsupported(key, fields.raw(key), f"supported: {width}")
    return own


def hy_v3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Hunyuan 3, whose dense layers are those without a router."""
    check_scores(fields, SIGMOID)
    width = fields.integer("expert_feed_forward_length", 1, MAX)
    shared = fields.integer("expert_shared_feed_forward_length", 0, MAX, default=width)
    if shared % width:
        fields.unsupported("expert_shared_feed_forward_length", shared, f"a multiple of {width}, an expert's width")
    if not fields.flag("expert_weights_norm", True):
        fields.unsupported("expert_weights_norm", False, "supported: true")
    return {
        "num_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": width,
        "num_shared_experts": shared // width,
        "router_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        "mlp_layer_types": kinds_of_ffn(file, config, "mlp.router.gate"),
    }


def kinds_of_ffn(file: Stored, config: Mapping[str, Any], router: str) -> list[str]:
    """Of each layer, by whether it has a router."""
    names = (f"model.layers.{i}.{router}.weight" for i in range(config["num_hidden_layers"]))
    return ["sparse" if name in file else "dense" for name in names]


def afmoe(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arcee Trinity, every fourth layer of which sees all and does not rotate."""
    check_scores(fields, SIGMOID)
    theta, key = config["rope_parameters"]["rope_theta"], "rope.freq_base_swa"
    if fields.number(key, 1.0, 1e15, default=theta) != theta:
        fields.unsupported(
            key, fields.raw(key), f"supported: {theta}, as of all layers: those without a window rotate not"
        )
    own = of_deepseek(fields)
    for said in ("n_group", "topk_group"):
        del own[said]
    if not own.pop("norm_topk_prob") and fields.raw("expert_weights_norm") is not None:
        fields.unsupported("expert_weights_norm", False, "supported: true")
    return {**own, "sliding_window": window_of(fields), **layer_types(fields, config, 4), "mup_enabled": True}


def hunyuan(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Hunyuan A13B."""
    width, key = config["intermediate_size"], "expert_shared_feed_forward_length"
    if fields.integer(key, 0, MAX, default=width) != width:
        fields.unsupported(key, fields.raw(key), f"supported: {width}")
    return {
        "num_experts": fields.integer("expert_count", 1, MAX),
        "moe_topk": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": width_of_one(fields, width),
        "num_shared_expert": fields.integer("expert_shared_count", 0, MAX, default=1),
    }


def llama4(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Llama 4. Every fourth layer sees all, does not rotate, and has queries that grow; the model of 128 experts has no
    norms of queries and keys."""
    if fields.raw("attention.sliding_window") == 0:
        fields.unsupported("attention.sliding_window", 0, "supported: layers that see chunks")
    fields.raw("attention.sliding_window")  # which is that of chunks, whatever it says
    count = counts(fields)
    return {
        **count,
        "intermediate_size": width_of_one(fields, config["intermediate_size"]),
        "intermediate_size_mlp": config["intermediate_size"],
        "interleave_moe_layer_step": fields.integer("interleave_moe_layer_step", 1, MAX),
        "no_rope_layers": [int((i + 1) % 4 > 0) for i in range(config["num_hidden_layers"])],
        "attention_chunk_size": 8192,
        "attn_temperature_tuning": True,
        "floor_scale": 8192,
        "attn_scale": 0.1,
        "use_qk_norm": count["num_local_experts"] != 128,
    }


def glm4(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    check_scores(fields, SIGMOID)
    has_norm = "model.layers.0.self_attn.q_norm.weight" in file
    return {**of_deepseek(fields), **biases(fields, file, config), "use_qk_norm": has_norm}


def of_deepseek(fields: Fields) -> dict[str, Any]:
    """Experts behind dense layers, in groups, with shared ones."""
    groups = fields.optional_integer("expert_group_count", 0, MAX) or 1
    return {
        "n_routed_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
        "n_shared_experts": fields.integer("expert_shared_count", 0, MAX, default=0),
        "first_k_dense_replace": fields.integer("leading_dense_block_count", 0, MAX, default=0),
        "n_group": groups,
        "topk_group": fields.optional_integer("expert_group_used_count", 0, MAX) or groups,
        "norm_topk_prob": fields.flag("expert_weights_norm", False),
        "routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
    }


def check_scores(fields: Fields, wanted: int) -> None:
    """Raises: UnsupportedModel for scores that the architecture does not have."""
    scores = fields.integer("expert_gating_func", 0, MAX, default=wanted) or wanted
    if scores != wanted:
        fields.unsupported("expert_gating_func", scores, f"supported: {wanted}")
