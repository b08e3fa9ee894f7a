"""Tensor names and shapes of models with Mamba 1 or Mamba 2 layers, or lightning attention, written out here,
independently of albireo.models.

Called by tiny_models.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiny_parts import MIXTRAL, Shapes, below, ended, experts, gated


def nemotron_h_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Nemotron H, as it is published."""
    hidden, vocab = config["hidden_size"], config["vocab_size"]
    shapes: Shapes = {"backbone.embeddings.weight": (vocab, hidden)}
    for i, letter in enumerate(config["hybrid_override_pattern"]):
        of_mixer = {"M": _nemotron_mamba, "*": _attention, "-": _ffn, "E": _experts}[letter](config)
        shapes[f"backbone.layers.{i}.norm.weight"] = (hidden,)
        shapes |= below(f"backbone.layers.{i}.mixer", of_mixer)
    return shapes | {"backbone.norm_f.weight": (hidden,), "lm_head.weight": (vocab, hidden)}


def granite_hybrid_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Granite 4.0, each expert's matrices by themselves."""
    hidden, heads = config["hidden_size"], config["mamba_n_heads"]
    shared, width, count = (
        config[f"{name}"] for name in ("shared_intermediate_size", "intermediate_size", "num_local_experts")
    )
    width_of_values, of_b = config["mamba_expand"] * hidden, config["mamba_n_groups"] * config["mamba_d_state"]
    flags = {"has_conv_bias": config["mamba_conv_bias"], "has_bias": config["mamba_proj_bias"]}
    of_mamba = mamba_shapes(hidden, heads, width_of_values, of_b, config["mamba_d_conv"], **flags)
    of_attention = _attention({"head_dim": hidden // config["num_attention_heads"], **config})
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i, kind in enumerate(config["layer_types"]):
        of_layer = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        part, of_part = ("mamba", of_mamba) if kind == "mamba" else ("self_attn", of_attention)
        of_layer |= below(part, of_part)
        of_layer |= {"shared_mlp.input_linear.weight": (2 * shared, hidden)}
        of_layer |= {"shared_mlp.output_linear.weight": (hidden, shared)}
        if count:
            of_layer["block_sparse_moe.router.layer.weight"] = (count, hidden)
        of_layer |= experts("block_sparse_moe.experts", count, width, hidden)
        shapes |= below(f"model.layers.{i}", of_layer)
    return ended(config, shapes)


def mamba2_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Mamba 2."""
    hidden, heads = config["hidden_size"], config["num_heads"]
    flags = {"has_conv_bias": config["use_conv_bias"], "has_bias": config["use_bias"]}
    sizes = (hidden, heads, heads * config["head_dim"], config["n_groups"] * config["state_size"])
    of_mixer = mamba_shapes(*sizes, config["conv_kernel"], **flags)
    shapes: Shapes = {"backbone.embeddings.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes[f"backbone.layers.{i}.norm.weight"] = (hidden,)
        shapes |= below(f"backbone.layers.{i}.mixer", of_mixer)
    return ended(config, shapes, "backbone.norm_f")


def mamba1_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Mamba 1, or of Falcon Mamba."""
    hidden, of_mixer = config["hidden_size"], _mamba1(config, MAMBA1_NAMES)
    shapes: Shapes = {"backbone.embeddings.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        shapes[f"backbone.layers.{i}.norm.weight"] = (hidden,)
        shapes |= below(f"backbone.layers.{i}.mixer", of_mixer)
    return ended(config, shapes, "backbone.norm_f")


def jamba_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Jamba, each expert's matrices by themselves."""
    hidden, width, count = config["hidden_size"], config["intermediate_size"], config["num_experts"]
    of_mamba = _mamba1(config, JAMBA_NAMES)
    norms = {"dt": of_mamba["dt_proj.weight"][1], "b": config["mamba_d_state"], "c": config["mamba_d_state"]}
    of_mamba |= {f"{part}_layernorm.weight": (size,) for part, size in norms.items()}
    of_attention = _attention({"head_dim": hidden // config["num_attention_heads"], "attention_bias": False, **config})
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        attends = i % config["attn_layer_period"] == config["attn_layer_offset"]
        part, found = ("self_attn", of_attention) if attends else ("mamba", of_mamba)
        of_layer: Shapes = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "pre_ff")}
        of_layer |= below(part, found)
        if count > 1 and i % config["expert_layer_period"] == config["expert_layer_offset"]:
            of_layer["feed_forward.router.weight"] = (count, hidden)
            of_layer |= experts("feed_forward.experts", count, width, hidden)
        else:
            of_layer |= gated("feed_forward", width, hidden)
        shapes |= below(f"model.layers.{i}", of_layer)
    return ended(config, shapes, "model.final_layernorm")


#: What they call channels of a state and rows of a convolution, how many widths values have, the rank of times, and
#: whether the convolution and the projections have biases.
MAMBA1_NAMES = ("state_size", "conv_kernel", "expand", "time_step_rank", "use_conv_bias", "use_bias")
JAMBA_NAMES = tuple(f"mamba_{n}" for n in ("d_state", "d_conv", "expand", "dt_rank", "conv_bias", "proj_bias"))


def _mamba1(config: Mapping[str, Any], names: tuple[str, ...]) -> Shapes:
    hidden, (size, kernel, expand, rank, has_conv_bias, has_bias) = config["hidden_size"], (config[n] for n in names)
    width, rank = expand * hidden, -(-hidden // 16) if rank == "auto" else rank
    shapes: Shapes = {"in_proj.weight": (2 * width, hidden), "out_proj.weight": (hidden, width)}
    shapes |= {"in_proj.bias": (2 * width,), "out_proj.bias": (hidden,)} if has_bias else {}
    shapes |= {"conv1d.weight": (width, kernel)} | ({"conv1d.bias": (width,)} if has_conv_bias else {})
    shapes |= {"x_proj.weight": (rank + 2 * size, width)}
    shapes |= {"dt_proj.weight": (width, rank), "dt_proj.bias": (width,)}
    return shapes | {"A_log": (width, size), "D": (width,)}


def bamba_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Bamba."""
    hidden, width = config["hidden_size"], config["intermediate_size"]
    of_b, flags = config["mamba_n_groups"] * config["mamba_d_state"], {"has_bias": config["mamba_proj_bias"]}
    flags["has_conv_bias"] = config["mamba_conv_bias"]
    values = config["mamba_expand"] * hidden
    of_mamba = mamba_shapes(hidden, config["mamba_n_heads"], values, of_b, config["mamba_d_conv"], **flags)
    of_ffn = _ffn(config) | {"gate_proj.weight": (width, hidden)}
    of_ffn |= {"gate_proj.bias": (width,)} if config["mlp_bias"] else {}
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        attends = i in (config["attn_layer_indices"] or [])
        part, found = ("self_attn", _attention(config)) if attends else ("mamba", of_mamba)
        of_layer: Shapes = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "pre_ff")}
        of_layer |= below(part, found)
        of_layer |= below("feed_forward", of_ffn)
        shapes |= below(f"model.layers.{i}", of_layer)
    return ended(config, shapes, "model.final_layernorm")


def zamba2_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Zamba 2: a block lies in the first layer that has it."""
    hidden, width, rank, both = (
        config[key] for key in ("hidden_size", "intermediate_size", "adapter_rank", "attention_hidden_size")
    )
    width = width or 4 * hidden
    of_b, values = config["mamba_ngroups"] * config["mamba_d_state"], config["mamba_expand"] * hidden
    flags = {"has_conv_bias": True, "has_bias": False}
    of_mamba = mamba_shapes(hidden, config["n_mamba_heads"], values, of_b, config["mamba_d_conv"], **flags)
    of_state: Shapes = {"input_layernorm.weight": (hidden,)} | {f"mamba.{n}": shape for n, shape in of_mamba.items()}
    kv = config["num_key_value_heads"] * config["attention_head_dim"]
    hybrid = [i for i, kind in enumerate(config["layers_block_type"]) if kind == "hybrid"]
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i, kind in enumerate(config["layers_block_type"]):
        prefix = f"model.layers.{i}." + ("mamba_decoder." if kind == "hybrid" else "")
        shapes |= {f"{prefix}{name}": shape for name, shape in of_state.items()}
    for turn, i in enumerate(hybrid):
        shapes[f"model.layers.{i}.linear.weight"] = (hidden, hidden)
        block = f"model.layers.{hybrid[turn % config['num_mem_blocks']]}.shared_transformer"
        of_block: Shapes = {"input_layernorm.weight": (both,), "pre_ff_layernorm.weight": (hidden,)}
        of_block |= {f"self_attn.{p}_proj.weight": (rows, both) for p, rows in (("q", both), ("k", kv), ("v", kv))}
        of_block |= {"self_attn.o_proj.weight": (hidden, both)}
        ffn = "feed_forward.gate_up_proj"
        of_block |= {f"{ffn}.weight": (2 * width, hidden), "feed_forward.down_proj.weight": (hidden, width)}
        more = {f"{ffn}_adapter_list.{turn}": (2 * width, hidden)}
        if config["use_shared_attention_adapter"]:
            more |= {f"self_attn.linear_{p}_adapter_list.{turn}": (both, both) for p in "qkv"}
        for name, (rows, columns) in more.items():
            of_block |= {f"{name}.0.weight": (rank, columns), f"{name}.1.weight": (rows, rank)}
        shapes |= below(block, of_block)
    return ended(config, shapes, "model.final_layernorm")


def falcon_h1_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of Falcon-H1."""
    hidden, width, values = config["hidden_size"], config["intermediate_size"], config["mamba_d_ssm"]
    values = values or config["mamba_expand"] * hidden
    of_b, flags = config["mamba_n_groups"] * config["mamba_d_state"], {"has_bias": False}
    flags["has_conv_bias"] = config["mamba_conv_bias"]
    of_mamba = mamba_shapes(hidden, config["mamba_n_heads"], values, of_b, config["mamba_d_conv"], **flags)
    if not config["mamba_rms_norm"]:
        del of_mamba["norm.weight"]
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        of_layer: Shapes = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "pre_ff")}
        of_layer |= below("self_attn", _attention(config)) | below("mamba", of_mamba)
        of_layer |= gated("feed_forward", width, hidden)
        shapes |= below(f"model.layers.{i}", of_layer)
    return ended(config, shapes, "model.final_layernorm")


def _nemotron_mamba(config: Mapping[str, Any]) -> Shapes:
    heads, dim = config["mamba_num_heads"], config["mamba_head_dim"]
    of_b = config["n_groups"] * config["ssm_state_size"]
    shape = (config["hidden_size"], heads, heads * dim, of_b, config["conv_kernel"])
    return mamba_shapes(*shape, has_conv_bias=config["use_conv_bias"], has_bias=config["use_bias"])


def mamba_shapes(
    hidden: int, heads: int, width: int, of_b: int, kernel: int, *, has_conv_bias: bool, has_bias: bool
) -> Shapes:
    """Args: width: channels of values; of_b: of b, and of c."""
    channels = width + 2 * of_b
    shapes: Shapes = {"in_proj.weight": (width + channels + heads, hidden), "out_proj.weight": (hidden, width)}
    if has_bias:
        shapes |= {"in_proj.bias": (width + channels + heads,), "out_proj.bias": (hidden,)}
    shapes |= {"conv1d.weight": (channels, kernel)} | ({"conv1d.bias": (channels,)} if has_conv_bias else {})
    return shapes | {"A_log": (heads,), "dt_bias": (heads,), "D": (heads,), "norm.weight": (width,)}


def _attention(config: Mapping[str, Any]) -> Shapes:
    hidden, dim = config["hidden_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    rows = {"q_proj": (q, hidden), "k_proj": (kv, hidden), "v_proj": (kv, hidden), "o_proj": (hidden, q)}
    shapes: Shapes = {f"{name}.weight": shape for name, shape in rows.items()}
    return shapes | (
        {f"{name}.bias": shape[:1] for name, shape in rows.items()} if config.get("attention_bias") else {}
    )


def _ffn(
    config: Mapping[str, Any], width: int | None = None, inner: int | None = None, is_plain: bool = False
) -> Shapes:
    hidden, width = inner or config["hidden_size"], width or config["intermediate_size"]
    shapes: Shapes = {"up_proj.weight": (width, hidden), "down_proj.weight": (hidden, width)}
    if config["mlp_bias"] and not is_plain:
        shapes |= {"up_proj.bias": (width,), "down_proj.bias": (hidden,)}
    return shapes


def _experts(config: Mapping[str, Any]) -> Shapes:
    hidden, count, latent = config["hidden_size"], config["n_routed_experts"], config.get("moe_latent_size")
    shapes: Shapes = {"gate.weight": (count, hidden), "gate.e_score_correction_bias": (count,)}
    of_expert = _ffn(config, config["moe_intermediate_size"], latent, is_plain=True)
    shapes |= {f"experts.{e}.{name}": shape for e in range(count) for name, shape in of_expert.items()}
    of_shared = _ffn(config, config["moe_shared_expert_intermediate_size"])
    shapes |= below("shared_experts", of_shared)
    if latent:
        latents: Shapes = {"fc1_latent_proj.weight": (latent, hidden), "fc2_latent_proj.weight": (hidden, latent)}
        if config["mlp_bias"]:
            latents |= {"fc1_latent_proj.bias": (latent,), "fc2_latent_proj.bias": (hidden,)}
        shapes |= latents
    return shapes


def minimax_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a checkpoint of MiniMax Text-01 or M1, each expert's matrices by themselves."""
    hidden, width, count = config["hidden_size"], config["intermediate_size"], config["num_local_experts"]
    values = config["num_attention_heads"] * config["head_dim"]
    kinds = config.get("layer_types") or [("linear_attention", "")[kind] for kind in config["attn_type_list"]]
    state: Shapes = {"qkv_proj.weight": (3 * values, hidden), "output_gate.weight": (values, hidden)}
    state |= {"norm.weight": (values,), "out_proj.weight": (hidden, values)}
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i, kind in enumerate(kinds):
        of_layer = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        of_block = state if kind == "linear_attention" else _attention(config)
        of_layer |= below("self_attn", of_block)
        of_layer["block_sparse_moe.gate.weight"] = (count, hidden)
        of_layer |= experts("block_sparse_moe.experts", count, width, hidden, MIXTRAL)
        shapes |= below(f"model.layers.{i}", of_layer)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


#: Architectures with such layers -> what their checkpoints hold.
OF_MAMBA: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    "bamba": bamba_shapes,
    "falcon_h1": falcon_h1_shapes,
    "falcon_mamba": mamba1_shapes,
    "granitemoehybrid": granite_hybrid_shapes,
    "jamba": jamba_shapes,
    "mamba": mamba1_shapes,
    "mamba2": mamba2_shapes,
    **dict.fromkeys(("minimax", "minimax_m1", "minimax_text_01"), minimax_shapes),
    "nemotron_h": nemotron_h_shapes,
    "zamba2": zamba2_shapes,
}
