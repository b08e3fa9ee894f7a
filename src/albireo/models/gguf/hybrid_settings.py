"""Settings of a GGUF file of a model whose layers keep a state, as the keys that its config.json has.

Named by the tables. What llama.cpp knows of an architecture and writes into no file is written down
here. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.mixture_settings import counts, of_deepseek, shared_width, width_of_one
from albireo.models.gguf.own_settings import granite_rotates, granite_scales, without_places
from albireo.models.gguf.stored import MAX, Stored, by_layer, optional_scale, rows_of


def gated_delta(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Qwen 3.5 and Qwen 3 Next, which is the same once its projections lie apart; older files of that have them as its
    checkpoints do."""
    without_places(fields)
    layers, heads = config["num_hidden_layers"], fields.integer("ssm.time_step_rank", 1, MAX)
    inner = fields.integer("ssm.inner_size", 1, MAX)
    if inner % heads:
        fields.fail("ssm.inner_size", inner, f"must be a multiple of ssm.time_step_rank={heads}")
    own: dict[str, Any] = {
        "linear_conv_kernel_dim": fields.integer("ssm.conv_kernel", 1, MAX),
        "linear_key_head_dim": fields.integer("ssm.state_size", 1, MAX),
        "linear_num_key_heads": fields.integer("ssm.group_count", 1, MAX),
        "linear_num_value_heads": heads,
        "linear_value_head_dim": inner // heads,
    }
    interval = fields.integer("full_attention_interval", 1, MAX, default=4)
    keeps = [(i + 1) % interval for i in range(layers)]
    if fields.raw("attention.recurrent_layers") is not None:
        keeps = by_layer(fields, "attention.recurrent_layers", layers)
    own["layer_types"] = ["linear_attention" if each else "full_attention" for each in keeps]
    if fields.raw("expert_count"):
        width = width_of_one(fields, rows_of(file, ".mlp.experts.0.up_proj.weight"))
        own |= {**counts(fields), "moe_intermediate_size": width, "intermediate_size": None}
        own["shared_expert_intermediate_size"] = shared_width(fields, file)
    if any(name.endswith(".linear_attn.in_proj_qkvz.weight") for name in file.names):
        own |= {"model_type": "qwen3_next", "norm_topk_prob": True, "intermediate_size": width}
    return own


def short_conv(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """LFM2: layers without heads of keys have a convolution."""
    heads = by_layer(fields, "attention.head_count_kv", config["num_hidden_layers"])
    if config["partial_rotary_factor"] != 1.0:
        rotated = fields.raw("rope.dimension_count")
        fields.unsupported("rope.dimension_count", rotated, f"supported: {config['head_dim']}, a whole head")
    own = {
        "layer_types": ["full_attention" if each else "conv" for each in heads],
        "conv_L_cache": fields.integer("shortconv.l_cache", 1, MAX),
        "partial_rotary_factor": None,
    }
    if not fields.raw("expert_count"):
        return own | {"block_auto_adjust_ff_dim": False}
    count = counts(fields)
    scores = fields.integer("expert_gating_func", 0, MAX, default=2)
    if scores != 2:
        fields.unsupported("expert_gating_func", scores, "supported: 2, sigmoids")
    return own | {
        "num_experts": count["num_local_experts"],
        "num_experts_per_tok": count["num_experts_per_tok"],
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
        "num_dense_layers": fields.integer("leading_dense_block_count", 0, MAX, default=0),
        "use_expert_bias": any(name.endswith(".feed_forward.expert_bias") for name in file.names),
        "routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
    }


def _mamba(fields: Fields, names: Mapping[str, str]) -> dict[str, Any]:
    """Args: names: of heads, head_dim, groups, state_size and conv_width in config.json."""
    heads, inner = fields.integer("ssm.time_step_rank", 1, MAX), fields.integer("ssm.inner_size", 1, MAX)
    if inner % heads:
        fields.fail("ssm.inner_size", inner, f"must be a multiple of ssm.time_step_rank={heads}")
    return {
        names["heads"]: heads,
        names["head_dim"]: inner // heads,
        names["groups"]: fields.integer("ssm.group_count", 1, MAX),
        names["state_size"]: fields.integer("ssm.state_size", 1, MAX),
        names["conv_width"]: fields.integer("ssm.conv_kernel", 1, MAX),
    }


def granite(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Granite 4.0."""
    names = {"heads": "n_heads", "head_dim": "d_head", "groups": "n_groups", "state_size": "d_state"}
    own = _mamba(fields, {key: f"mamba_{name}" for key, name in {**names, "conv_width": "d_conv"}.items()})
    hidden, width = config["hidden_size"], own["mamba_n_heads"] * own["mamba_d_head"]
    if width % hidden:
        fields.unsupported("ssm.inner_size", width, f"it must be a multiple of embedding_length={hidden}")
    heads = by_layer(fields, "attention.head_count_kv", config["num_hidden_layers"])
    is_mixture = bool(fields.raw("expert_count"))
    shared = fields.optional_integer("expert_shared_feed_forward_length", 0, MAX)
    own |= {
        "layer_types": ["attention" if each else "mamba" for each in heads],
        "mamba_expand": width // hidden,
        "mamba_conv_bias": any(name.endswith(".mamba.conv1d.bias") for name in file.names),
        "mamba_proj_bias": any(name.endswith(".mamba.in_proj.bias") for name in file.names),
        "position_embedding_type": "rope" if granite_rotates(fields) else "nope",
        "shared_intermediate_size": shared or config["intermediate_size"],
        "num_local_experts": 0,
        **(counts(fields) if is_mixture else {}),
    }
    return own | granite_scales(fields, config)


_MAMBA_NAMES = {
    "heads": "mamba_n_heads",
    "head_dim": "mamba_d_head",
    "groups": "mamba_n_groups",
    "state_size": "mamba_d_state",
    "conv_width": "mamba_d_conv",
}


def falcon_h1(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Falcon-H1, whose multipliers are in its matrices there."""
    own = _mamba(fields, _MAMBA_NAMES)
    return {
        **own,
        "mamba_d_ssm": own["mamba_n_heads"] * own["mamba_d_head"],
        "mamba_conv_bias": any(name.endswith(".mamba.conv1d.bias") for name in file.names),
        "mamba_rms_norm": any(name.endswith(".mamba.norm.weight") for name in file.names),
        "mamba_norm_before_gate": False,
    }


def mamba2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Mamba 2, of which heads and FFNs are counted as none."""
    fields.raw("feed_forward_length")
    own = _mamba(fields, _MAMBA2_NAMES)
    width, hidden = own["num_heads"] * own["head_dim"], config["hidden_size"]
    if width % hidden:
        fields.unsupported("ssm.inner_size", width, f"it must be a multiple of embedding_length={hidden}")
    return {
        **own,
        "expand": width // hidden,
        "use_conv_bias": any(name.endswith(".mixer.conv1d.bias") for name in file.names),
        "use_bias": any(name.endswith(".mixer.in_proj.bias") for name in file.names),
        "num_attention_heads": 1,
        "rope_parameters": None,
        "partial_rotary_factor": None,
    }


_MAMBA2_NAMES = {
    "heads": "num_heads",
    "head_dim": "head_dim",
    "groups": "n_groups",
    "state_size": "state_size",
    "conv_width": "conv_kernel",
}


def mamba1(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Mamba 1, and Falcon Mamba where parts of it are normed. Heads and FFNs are counted as none."""
    fields.raw("feed_forward_length")
    return {
        "model_type": "falcon_mamba" if fields.flag("ssm.dt_b_c_rms", False) else "mamba",
        **_mamba1(fields, file, config, "", ".mixer"),
        "num_attention_heads": 1,
        "rope_parameters": None,
        "partial_rotary_factor": None,
        "head_dim": None,
    }


def _mamba1(fields: Fields, file: Stored, config: Mapping[str, Any], prefix: str, module: str) -> dict[str, Any]:
    """Args: prefix: of keys. module: what tensors of a state lie in, behind its layer."""
    inner, hidden = fields.integer("ssm.inner_size", 1, MAX), config["hidden_size"]
    if inner % hidden:
        fields.unsupported("ssm.inner_size", inner, f"it must be a multiple of embedding_length={hidden}")
    names = _MAMBA1_NAMES[prefix]
    return {
        f"{prefix}expand": inner // hidden,
        names["state_size"]: fields.integer("ssm.state_size", 1, MAX),
        names["conv_width"]: fields.integer("ssm.conv_kernel", 1, MAX),
        names["rank"]: fields.integer("ssm.time_step_rank", 1, MAX),
        names["conv_bias"]: any(name.endswith(f"{module}.conv1d.bias") for name in file.names),
        names["bias"]: any(name.endswith(f"{module}.in_proj.bias") for name in file.names),
    }


def jamba(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Jamba: layers with heads of keys attend, and such as have a router have experts; both come again and again."""
    layers = config["num_hidden_layers"]
    attends = [bool(each) for each in by_layer(fields, "attention.head_count_kv", layers)]
    period, offset = _again(fields, "attention.head_count_kv", attends)
    routers = [f"model.layers.{i}.feed_forward.router.weight" in file for i in range(layers)]
    own = {
        **_mamba1(fields, file, config, "mamba_", ".mamba"),
        "attn_layer_period": period,
        "attn_layer_offset": offset,
        "num_experts": 1,
        "rope_parameters": None,
        "partial_rotary_factor": None,
        "head_dim": None,
    }
    if not any(routers):
        for key in ("expert_count", "expert_used_count"):
            fields.raw(key)
        return own
    period, offset = _again(fields, "expert_count", routers)
    count = counts(fields)
    return own | {
        "num_experts": count["num_local_experts"],
        "num_experts_per_tok": count["num_experts_per_tok"],
        "expert_layer_period": period,
        "expert_layer_offset": offset,
    }


def _again(fields: Fields, key: str, flags: list[bool]) -> tuple[int, int]:
    """Every so many-th layer, from which on. Raises: UnsupportedModel for layers that come otherwise."""
    found = [i for i, flag in enumerate(flags) if flag]
    period = found[1] - found[0] if len(found) > 1 else len(flags)
    if not found or flags != [i % period == found[0] for i in range(len(flags))]:
        fields.unsupported(key, found, "layers that have it must be every so many-th")
    return period, found[0]


_MAMBA1_NAMES = {
    prefix: {
        "state_size": states,
        "conv_width": conv,
        "rank": rank,
        "conv_bias": f"{use}conv_bias",
        "bias": bias,
    }
    for prefix, states, conv, rank, use, bias in (
        ("", "state_size", "conv_kernel", "time_step_rank", "use_", "use_bias"),
        ("mamba_", "mamba_d_state", "mamba_d_conv", "mamba_dt_rank", "mamba_", "mamba_proj_bias"),
    )
}
_NEMOTRON_NAMES = {
    "heads": "mamba_num_heads",
    "head_dim": "mamba_head_dim",
    "groups": "n_groups",
    "state_size": "ssm_state_size",
    "conv_width": "conv_kernel",
}


def nemotron(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Nemotron H, whose layers are what their tensors are."""
    letters = "".join(_nemotron_letter(file, i) for i in range(config["num_hidden_layers"]))
    own = {
        **_mamba(fields, _NEMOTRON_NAMES),
        "hybrid_override_pattern": letters,
        "use_conv_bias": any(name.endswith(".mixer.conv1d.bias") for name in file.names),
        "use_bias": any(name.endswith(".mixer.in_proj.bias") for name in file.names),
        "mlp_bias": any(name.endswith(".mixer.up_proj.bias") for name in file.names),
        "rope_parameters": None,
        "partial_rotary_factor": None,
    }
    if "-" in letters:
        first = letters.index("-")
        own["intermediate_size"] = file.shape(f"backbone.layers.{first}.mixer.up_proj.weight")[0]
    if "E" not in letters:
        return own
    experts = of_deepseek(fields)
    del experts["first_k_dense_replace"], experts["n_shared_experts"]
    return {
        **own,
        **experts,
        "moe_shared_expert_intermediate_size": fields.integer("expert_shared_feed_forward_length", 1, MAX),
        "moe_latent_size": fields.optional_integer("moe_latent_size", 1, MAX),
    }


def _nemotron_letter(file: Stored, layer: int) -> str:
    name = f"backbone.layers.{layer}.mixer"
    kinds = {"M": "in_proj", "*": "q_proj", "E": "gate"}
    return next((letter for letter, part in kinds.items() if f"{name}.{part}.weight" in file), "-")
