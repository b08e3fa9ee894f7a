"""Tensor names and shapes of tiny models that choose what they see, written out apart from albireo.models; see
tiny_models.py. DeepSeek V3.2 and GLM-5 are in tiny_latent.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiny_latent import latent_shapes, of_dots3, value_width
from tiny_parts import MIXTRAL, Shapes, below, experts, gated, in_layers, whole


def _deepseek_ffn(c: Mapping[str, Any], has_experts: bool) -> Shapes:
    """One FFN, or experts with a bias beside shared ones."""
    hidden, width, count = c["hidden_size"], c.get("moe_intermediate_size", 0), c["n_routed_experts"]
    if not has_experts:
        return gated("mlp", c["intermediate_size"], hidden)
    shapes: Shapes = {"mlp.gate.weight": (count, hidden), "mlp.gate.e_score_correction_bias": (count,)}
    shapes |= experts("mlp.experts", count, width, hidden)
    return shapes | gated("mlp.shared_experts", c["n_shared_experts"] * width, hidden)


def _axk2(c: Mapping[str, Any]) -> Shapes:
    hidden, heads, rank, low = (c[k] for k in ("hidden_size", "num_attention_heads", "gated_norm_rank", "q_lora_rank"))
    of_head = c["qk_nope_head_dim"] + c["qk_rope_head_dim"] + c["v_head_dim"]
    layers = []
    for i in range(c["num_hidden_layers"]):
        has_experts = i >= c["first_k_dense_replace"]
        layer = latent_shapes(c) | _deepseek_ffn(c, has_experts)
        layer["self_attn.q_b_proj.weight"] = (heads * of_head, 2 * low)
        layer["self_attn.o_proj.weight"] = (hidden, heads * value_width(c))
        gated = ("input_layernorm", "post_attention_layernorm") if has_experts else ("input_layernorm",)
        for norm in gated:
            layer |= {f"{norm}.norm.weight": (hidden,), f"{norm}.W_down.weight": (rank, hidden)}
            layer |= {f"{norm}.W_up.weight": (hidden, rank)}
        if not has_experts:
            layer["post_attention_layernorm.weight"] = (hidden,)
        layers.append(layer)
    return whole(c, in_layers(layers))


def _hy_v4(c: Mapping[str, Any]) -> Shapes:
    hidden, heads, count = c["hidden_size"], c["num_attention_heads"], c["hc_mult"]
    layers = []
    for i in range(c["num_hidden_layers"]):
        layer = latent_shapes(c) | _deepseek_ffn(c, c["mlp_layer_types"][i] == "sparse")
        if c["indexer_types"][i] == "shared":
            layer = {name: shape for name, shape in layer.items() if ".indexer." not in name}
        layer["self_attn.o_proj.weight"] = (hidden, heads * value_width(c))
        layer |= {"self_attn.gate_proj.weight": (heads * value_width(c), hidden), "self_attn.sinks": (heads,)}
        layer |= {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        for of in ("attn_hc", "ffn_hc"):
            layer |= {f"{of}.fn": (2 * count, count * hidden), f"{of}.base": (2 * count,), f"{of}.scale": (2,)}
        layers.append(layer)
    of_head: Shapes = {"hc_fn": (count, count * hidden), "hc_base": (count,), "hc_scale": (1,)}
    return whole(c, in_layers(layers)) | below("model.hc_head", of_head)


def _minimax_m3(c: Mapping[str, Any]) -> Shapes:
    hidden, heads, kv, d = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    count, width, index, dim = (
        c[k] for k in ("num_local_experts", "intermediate_size", "index_n_heads", "index_head_dim")
    )
    layers = []
    for kind, ffn in zip(c["layer_types"], c["mlp_layer_types"], strict=True):
        layer: Shapes = {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        layer |= {f"self_attn.{p}_proj.weight": (n * d, hidden) for p, n in (("q", heads), ("k", kv), ("v", kv))}
        layer |= {"self_attn.o_proj.weight": (hidden, heads * d)}
        layer |= {f"self_attn.{p}_norm.weight": (d,) for p in "qk"}
        if kind == "minimax_m3_sparse":
            layer |= {"self_attn.index_q_proj.weight": (index * dim, hidden)}
            layer |= {"self_attn.index_k_proj.weight": (dim, hidden)}
            layer |= {f"self_attn.index_{p}_norm.weight": (dim,) for p in "qk"}
        if ffn == "dense":
            layer |= gated("mlp", c["dense_intermediate_size"], hidden)
        else:
            block = "block_sparse_moe"
            layer |= {f"{block}.gate.weight": (count, hidden), f"{block}.e_score_correction_bias": (count,)}
            layer |= gated(f"{block}.shared_experts", c["shared_intermediate_size"], hidden)
            layer |= experts(f"{block}.experts", count, width, hidden, MIXTRAL)
        layers.append(layer)
    return whole(c, in_layers(layers))


def _dots3(c: Mapping[str, Any]) -> Shapes:
    hidden = c["hidden_size"]
    layers = []
    for kind, ffn in zip(c["layer_types"], c["mlp_layer_types"], strict=True):
        own = of_dots3(c, kind)
        layer = latent_shapes(own)
        if kind != "indexed_attention":
            layer = {name: shape for name, shape in layer.items() if ".indexer." not in name}
        layer |= {"self_attn.k_rope_only_layernorm.weight": (own["qk_rope_head_dim"],)}
        layer |= {"self_attn.g_proj.weight": (own["num_attention_heads"], hidden)}
        layer |= {"self_attn.o_proj.weight": (hidden, own["num_attention_heads"] * value_width(own))}
        layer |= {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        layer |= _deepseek_ffn(c, ffn == "sparse")
        if ffn == "sparse":
            layer |= gated("mlp.shared_experts", c["n_shared_experts"] * c["shared_experts_intermediate_size"], hidden)
        layers.append(layer)
    return whole(c, in_layers(layers))


def _mixing(c: Mapping[str, Any]) -> Shapes:
    """What says how streams are read, written and mixed."""
    count, shapes = c["hc_mult"], Shapes()
    for of in ("attn_hc", "ffn_hc"):
        numbers = (2 + count) * count
        shapes |= {f"{of}.fn": (numbers, count * c["hidden_size"]), f"{of}.base": (numbers,), f"{of}.scale": (3,)}
    return shapes


def _glm5(c: Mapping[str, Any]) -> Shapes:
    hidden, heads, width = (c[k] for k in ("hidden_size", "linear_num_heads", "linear_head_dim"))
    layers = []
    for kind, indexer, ffn in zip(c["layer_types"], c["indexer_types"], c["mlp_layer_types"], strict=True):
        if kind == "linear_attention":
            attention: Shapes = {f"{p}_proj.weight": (heads * width, hidden) for p in "qkv"}
            attention |= {f"{p}_conv1d.weight": (heads * width, c["linear_conv_kernel_dim"]) for p in "qkv"}
            attention |= {f"{p}_a_proj.weight": (width, hidden) for p in "fg"}
            attention |= {f"{p}_b_proj.weight": (heads * width, width) for p in "fg"}
            attention |= {"A_log": (heads,), "dt_bias": (heads * width,), "b_proj.weight": (heads, hidden)}
            attention |= {"o_norm.weight": (width,), "o_proj.weight": (hidden, heads * width)}
            layer = below("self_attn", attention)
        else:
            layer = {
                name: shape for name, shape in latent_shapes(c).items() if indexer == "full" or ".indexer." not in name
            }
            layer["self_attn.o_proj.weight"] = (hidden, c["num_attention_heads"] * value_width(c))
            if indexer == "full":
                of, dim = "self_attn.indexer.index_kpool_compress", c["index_head_dim"]
                layer |= {f"{of}_gate": (dim, hidden), f"{of}_ape": (c["index_kpool"], dim)}
        layer |= {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        layer |= _deepseek_ffn(c, ffn == "sparse")
        layers.append(layer | _mixing(c))
    return whole(c, in_layers(layers))


def _qwen4(c: Mapping[str, Any]) -> Shapes:
    hidden, count, rank, d = (c[k] for k in ("hidden_size", "hc_count", "hc_lowrank", "head_dim"))
    keys, values = (c[f"linear_num_{p}_heads"] * c[f"linear_{p}_head_dim"] for p in ("key", "value"))
    heads, kv, of_states = c["num_attention_heads"], c["num_key_value_heads"], c["linear_num_value_heads"]

    def mixing(of: str, writes: bool = True) -> Shapes:
        wide = count * hidden
        shapes: Shapes = {"hc_norm.weight": (wide,), "input_mix_weight_down.weight": (rank, wide)}
        shapes |= {"input_mix_weight_up.weight": (wide, rank)}
        shapes |= {"block_inject_weight.weight": (count, wide)} if writes else {}
        return below(of, shapes)

    layers = []
    for kind in c["layer_types"]:
        if kind == "linear_attention":
            parts: Shapes = {"in_proj_qkv.weight": (2 * keys + values, hidden), "in_proj_z.weight": (values, hidden)}
            parts |= {f"in_proj_{p}.weight": (of_states, hidden) for p in "ab"}
            parts |= {"conv1d.weight": (2 * keys + values, c["linear_conv_kernel_dim"])}
            parts |= {"A_log": (of_states,), "dt_bias": (of_states,), "out_proj.weight": (hidden, values)}
            parts |= {"norm.weight": (c["linear_value_head_dim"],)}
            layer: Shapes = below("linear_attn", parts)
        else:
            rows, dim = {"q": 2 * heads * d, "k": kv * d, "v": kv * d}, c["indexer_head_dim"]
            layer = {f"self_attn.{p}_proj.weight": (n, hidden) for p, n in rows.items()}
            layer |= {"self_attn.o_proj.weight": (hidden, heads * d)}
            layer |= {f"self_attn.{p}_norm.weight": (d,) for p in "qk"}
            layer |= {f"self_attn.indexer.{p}_layernorm.weight": (dim,) for p in "qk"}
            layer |= {"self_attn.indexer.index_qk_proj.weight": ((c["indexer_n_heads"] + 1) * dim, hidden)}
        layer |= mixing("attn_hyper_connection") | mixing("mlp_hyper_connection")
        layer |= {"mlp.gate.weight": (c["num_experts"], hidden), "mlp.shared_expert_gate.weight": (1, hidden)}
        layer |= gated("mlp.shared_expert", c["shared_expert_intermediate_size"], hidden)
        layer |= experts("mlp.experts", c["num_experts"], c["moe_intermediate_size"], hidden)
        layers.append(layer)
    found = {name: shape for name, shape in whole(c, in_layers(layers)).items() if name != "model.norm.weight"}
    return found | mixing("model.hyper_connection_mixer", writes=False)


def _layers_of_v4(c: Mapping[str, Any]) -> list[tuple[str, int, str]]:
    """Kinds of attention, positions of an entry, and kinds of experts; as published or as transformers writes them."""
    words = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    rates = {word: each for each, word in words.items()} | c.get("compress_rates", {})
    rates["heavily_compressed_attention"] = c.get("compress_rate_hca", rates["heavily_compressed_attention"])
    layers = range(c["num_hidden_layers"])
    kinds = c.get("layer_types") or [words[c["compress_ratios"][i]] for i in layers]
    ffns = c.get("mlp_layer_types") or ["hash_moe" if i < c["num_hash_layers"] else "moe" for i in layers]
    return [(kind, rates[kind], ffn) for kind, ffn in zip(kinds, ffns, strict=True)]


def _deepseek_v4(c: Mapping[str, Any]) -> Shapes:
    hidden, heads, d, low = (c[k] for k in ("hidden_size", "num_attention_heads", "head_dim", "q_lora_rank"))
    count, width, choices = c["hc_mult"], c["moe_intermediate_size"], c["n_routed_experts"]

    def entries(every: int, series: int, width: int) -> Shapes:
        shapes: Shapes = {f"{p}_proj.weight": (series * width, hidden) for p in ("kv", "gate")}
        return shapes | {"position_bias": (every, series * width), "kv_norm.weight": (width,)}

    layers = []
    for kind, every, ffn in _layers_of_v4(c):
        attention: Shapes = {"q_a_proj.weight": (low, hidden), "q_a_norm.weight": (low,), "sinks": (heads,)}
        attention |= {"q_b_proj.weight": (heads * d, low), "kv_proj.weight": (d, hidden), "kv_norm.weight": (d,)}
        made = c["o_groups"] * c["o_lora_rank"]
        attention |= {"o_a_proj.weight": (made, heads * d // c["o_groups"]), "o_b_proj.weight": (hidden, made)}
        if kind != "sliding_attention":
            is_chosen = kind == "compressed_sparse_attention"
            found = entries(every, 2 if is_chosen else 1, d)
            if is_chosen:
                index, dim = c["index_n_heads"], c["index_head_dim"]
                found |= below("indexer", entries(every, 2, dim))
                found |= {"indexer.q_b_proj.weight": (index * dim, low)}
                found |= {"indexer.scorer.weights_proj.weight": (index, hidden)}
            attention |= below("compressor", found)
        layer = below("self_attn", attention)
        layer |= {f"{norm}_layernorm.weight": (hidden,) for norm in ("input", "post_attention")}
        layer |= {"mlp.gate.weight": (choices, hidden)} | gated("mlp.shared_experts", width, hidden)
        if ffn == "hash_moe":
            layer["mlp.gate.tid2eid"] = (c["vocab_size"], c["num_experts_per_tok"])
        else:
            layer["mlp.gate.e_score_correction_bias"] = (choices,)
        layer |= experts("mlp.experts", choices, width, hidden)
        layers.append(layer | _mixing(c))
    of_head: Shapes = {"hc_fn": (count, count * hidden), "hc_base": (count,), "hc_scale": (1,)}
    return whole(c, in_layers(layers)) | below("model.hc_head", of_head)


CHOOSING: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    "axk2": _axk2,
    "deepseek_v4": _deepseek_v4,
    "dots3_note_text": _dots3,
    "glm5_next_text": _glm5,
    "hy_v4": _hy_v4,
    "qwen4_exp_text": _qwen4,
    "minimax_m3_vl_text": _minimax_m3,
}
