"""Tensor names and shapes of checkpoints of decoders of which some layers have a window: one short function a family.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_parts import Shapes, experts, gated, whole


def _attention(c: Mapping[str, Any], name: str, bias: bool) -> Shapes:
    e, d = c["hidden_size"], c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    q, kv = c["num_attention_heads"] * d, c["num_key_value_heads"] * d
    matrices: Shapes = {"q": (q, e), "k": (kv, e), "v": (kv, e), "o": (e, q)}
    shapes = {f"{name}.{p}_proj.weight": shape for p, shape in matrices.items()}
    return shapes | ({f"{name}.{p}_proj.bias": shape[:1] for p, shape in matrices.items()} if bias else {})


def _granites(c: Mapping[str, Any]) -> Shapes:
    """granite_swa, granitemoe_swa."""
    e, layers = c["hidden_size"], Shapes()
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        layers |= _attention(c, f"{h}.self_attn", c["attention_bias"])
        layers[f"{h}.self_attn.sinks"] = (c["num_attention_heads"],)
        if c["model_type"] == "granite_swa":
            layers |= gated(f"{h}.mlp", c["intermediate_size"], e)
            continue
        layers[f"{h}.block_sparse_moe.router.weight"] = (c["num_local_experts"], e)
        layers |= experts(f"{h}.block_sparse_moe.experts", c["num_local_experts"], c["intermediate_size"], e)
        if shared := c["shared_intermediate_size"]:
            layers[f"{h}.shared_mlp.input_linear.weight"] = (2 * shared, e)
            layers[f"{h}.shared_mlp.output_linear.weight"] = (e, shared)
    return whole(c, layers)


def _laguna(c: Mapping[str, Any]) -> Shapes:
    e, d, layers = c["hidden_size"], c["head_dim"], Shapes()
    for i, heads in enumerate(c["num_attention_heads_per_layer"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        layers |= _attention({**c, "num_attention_heads": heads}, f"{h}.self_attn", c["attention_bias"])
        layers |= {f"{h}.self_attn.{p}_norm.weight": (d,) for p in "qk"}
        layers[f"{h}.self_attn.g_proj.weight"] = (heads * (d if c["gating"] == "per-element" else 1), e)
        if c["mlp_layer_types"][i] == "dense":
            layers |= gated(f"{h}.mlp", c["intermediate_size"], e)
            continue
        layers[f"{h}.mlp.gate.weight"] = (c["num_experts"], e)
        layers[f"{h}.mlp.experts.e_score_correction_bias"] = (c["num_experts"],)
        layers |= experts(f"{h}.mlp.experts", c["num_experts"], c["moe_intermediate_size"], e)
        layers |= gated(f"{h}.mlp.shared_expert", c["shared_expert_intermediate_size"], e)
    return whole(c, layers)


def _step3p5(c: Mapping[str, Any]) -> Shapes:
    e, d, layers = c["hidden_size"], c["head_dim"], Shapes()
    for i, kind in enumerate(c["layer_types"]):
        h = f"model.layers.{i}"
        heads = c["num_sliding_attention_heads" if kind == "sliding_attention" else "num_attention_heads"]
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        layers |= _attention({**c, "num_attention_heads": heads}, f"{h}.self_attn", c.get("attention_bias", False))
        layers |= {f"{h}.self_attn.{p}_norm.weight": (d,) for p in "qk"}
        layers[f"{h}.self_attn.g_proj.weight"] = (heads, e)
        if c["mlp_layer_types"][i] == "dense":
            layers |= gated(f"{h}.mlp", c["intermediate_size"], e)
            continue
        layers[f"{h}.mlp.gate.weight"] = (c["n_routed_experts"], e)
        layers[f"{h}.mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        layers |= experts(f"{h}.mlp.experts", c["n_routed_experts"], c["moe_intermediate_size"], e)
        layers |= gated(f"{h}.mlp.shared_experts", c["share_expert_dim"], e)
    return whole(c, layers)


def _cohere2_moe(c: Mapping[str, Any]) -> Shapes:
    e, f, layers = c["hidden_size"], c["intermediate_size"], Shapes()
    for i, kind in enumerate(c["mlp_layer_types"]):
        h = f"model.layers.{i}"
        layers[f"{h}.input_layernorm.weight"] = (e,)
        layers |= _attention(c, f"{h}.self_attn", c["attention_bias"])
        if kind == "dense":
            layers |= gated(f"{h}.mlp", c["prefix_dense_intermediate_size"], e)
            continue
        layers[f"{h}.mlp.gate.weight"] = (c["num_experts"], e)
        layers |= experts(f"{h}.mlp.experts", c["num_experts"], f, e)
        if c["num_shared_experts"]:
            layers |= gated(f"{h}.mlp.shared_experts", c["num_shared_experts"] * f, e)
    return whole(c, layers)


def _flint(c: Mapping[str, Any]) -> Shapes:
    """kolibri1, too."""
    e, layers, is_flint = c["hidden_size"], Shapes(), c["model_type"] == "flint"
    norms = ("input_layernorm", "post_attention_layernorm")
    norms += () if is_flint else ("post_attn_norm", "post_ffn_norm")
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{norm}.weight": (e,) for norm in norms}
        layers |= _attention(c, f"{h}.self_attn", bool(c.get("attention_bias")))
        layers |= {f"{h}.self_attn.{p}_norm.weight": (c["head_dim"],) for p in "qk"}
        if is_flint:
            layers[f"{h}.self_attn.softmax_offset"] = (c["num_attention_heads"],)
            if i in (c["mlp_only_layers"] or (0, 1)):
                layers |= gated(f"{h}.mlp", c["intermediate_size"], e)
                continue
        else:
            layers[f"{h}.moe.router.expert_bias"] = (c["num_experts"],)
        layers[f"{h}.mlp.gate.weight"] = (c["num_experts"], e)
        layers |= experts(f"{h}.mlp.experts", c["num_experts"], c["moe_intermediate_size"], e)
        layers |= gated(f"{h}.mlp.shared_expert{'' if is_flint else 's'}", c["shared_expert_intermediate_size"], e)
    return whole(c, layers)


def _lara(c: Mapping[str, Any]) -> Shapes:
    e, layers = c["hidden_size"], Shapes()
    keys, values = (c[f"linear_num_{p}_heads"] * c[f"linear_{p}_head_dim"] for p in ("key", "value"))
    heads = c["linear_num_value_heads"]
    for i, kind in enumerate(c["layer_types"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        if kind == "linear_attention":
            block = f"{h}.linear_attn"
            layers[f"{block}.in_proj.weight"] = (2 * keys + 2 * values + 2 * heads, e)
            layers[f"{block}.conv1d.weight"] = (2 * keys + values, c["linear_conv_kernel_dim"])
            layers |= {f"{block}.A_log": (heads,), f"{block}.dt_bias": (heads,)}
            layers[f"{block}.out_norm.weight"] = (c["linear_value_head_dim"],)
            layers[f"{block}.out_proj.weight"] = (e, values)
        else:
            layers |= _attention(c, f"{h}.self_attn", c["attention_bias"])
            layers |= {f"{h}.self_attn.{p}_norm.weight": (c["head_dim"],) for p in "qk"}
        layers[f"{h}.mlp.gate.weight"] = (c["num_experts"], e)
        layers |= experts(f"{h}.mlp.experts", c["num_experts"], c["moe_intermediate_size"], e)
        layers |= gated(f"{h}.mlp.shared_expert", c["shared_expert_intermediate_size"], e)
    return whole(c, layers)


def _mimo(c: Mapping[str, Any]) -> Shapes:
    e, heads, layers = c["hidden_size"], c["num_attention_heads"], Shapes()
    for i, kind in enumerate(c["layer_types"]):
        h, kv = f"model.layers.{i}", c["num_key_value_heads"]
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        if kind == "sliding_attention":
            kv *= 2
            layers[f"{h}.self_attn.attention_sink_bias"] = (heads,)
        rows = {"q": heads * c["head_dim"], "k": kv * c["head_dim"], "v": kv * c["v_head_dim"]}
        layers |= {f"{h}.self_attn.{p}_proj.weight": (n, e) for p, n in rows.items()}
        if c["attention_bias"]:
            layers |= {f"{h}.self_attn.{p}_proj.bias": (n,) for p, n in rows.items()}
        layers[f"{h}.self_attn.o_proj.weight"] = (e, heads * c["v_head_dim"])
        if c["mlp_layer_types"][i] == "dense":
            layers |= gated(f"{h}.mlp", c["intermediate_size"], e)
            continue
        layers[f"{h}.mlp.gate.weight"] = (c["n_routed_experts"], e)
        layers[f"{h}.mlp.gate.e_score_correction_bias"] = (c["n_routed_experts"],)
        layers |= experts(f"{h}.mlp.experts", c["n_routed_experts"], c["moe_intermediate_size"], e)
    return whole(c, layers)


def _jetmoe(c: Mapping[str, Any]) -> Shapes:
    e, kv, layers = c["hidden_size"], c["num_key_value_heads"] * c["kv_channels"], Shapes()
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        layers |= {f"{h}.{norm}_layernorm.weight": (e,) for norm in ("input", "post_attention")}
        layers[f"{h}.self_attention.kv_proj.weight"] = (2 * kv, e)
        for block in ("self_attention.experts", "mlp"):
            layers[f"{h}.{block}.router.layer.weight"] = (c["num_local_experts"], e)
            layers[f"{h}.{block}.bias"] = (e,)
        for expert in range(c["num_local_experts"]):
            layers[f"{h}.self_attention.experts.{expert}.q_proj.weight"] = (kv, e)
            layers[f"{h}.self_attention.experts.{expert}.o_proj.weight"] = (e, kv)
            layers |= gated(f"{h}.mlp.experts.{expert}", c["intermediate_size"], e)
    return whole(c, layers)


#: model_type -> every tensor of a checkpoint, as it is read.
WITH_WINDOWS: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    **dict.fromkeys(("granite_swa", "granitemoe_swa"), _granites),
    "cohere2_moe": _cohere2_moe,
    "jetmoe": _jetmoe,
    "laguna": _laguna,
    "mimo_v2_flash": _mimo,
    **dict.fromkeys(("flint", "kolibri1"), _flint),
    "lara_mini": _lara,
    "step3p5": _step3p5,
}


def step_as_published(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Gates, ups and downs of all experts of a layer, each in one tensor, and names as published."""
    names = {".mlp.gate.weight": ".moe.gate.weight", ".mlp.gate.e_score_correction_bias": ".moe.router_bias"}
    names |= {f".mlp.shared_experts.{p}_proj.weight": f".share_expert.{p}_proj.weight" for p in ("gate", "up", "down")}
    stored: dict[str, NDArray[np.float32]] = {}
    for name, tensor in tensors.items():
        layer, _, rest = name.partition(".mlp.experts.")
        if not rest:
            old = next((old for old in names if name.endswith(old)), "")
            stored[name.removesuffix(old) + names.get(old, "")] = tensor
        elif rest.startswith("0."):
            every = [tensors[f"{layer}.mlp.experts.{e}.{rest[2:]}"] for e in range(_count(tensors, layer))]
            stored[f"{layer}.moe.{rest[2:]}"] = np.stack(every)
    return stored


def _count(tensors: Mapping[str, Any], layer: str) -> int:
    return len(tensors[f"{layer}.mlp.gate.e_score_correction_bias"])
