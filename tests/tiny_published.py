"""Tensor names and shapes of checkpoints of families that were published with code of their own: one short function a
family.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tiny_parts import Shapes, experts, gated, module, whole


def _chatglm(c: Mapping[str, Any]) -> Shapes:
    e, f, d, vocab = c["hidden_size"], c["ffn_hidden_size"], c["kv_channels"], c["padded_vocab_size"]
    shapes: Shapes = {"transformer.embedding.word_embeddings.weight": (vocab, e)}
    rows = (c["num_attention_heads"] + 2 * c["multi_query_group_num"]) * d
    for i in range(c["num_layers"]):
        h = f"transformer.encoder.layers.{i}"
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= module(f"{h}.self_attention.query_key_value", (rows, e), c["add_qkv_bias"])
        shapes[f"{h}.self_attention.dense.weight"] = (e, c["num_attention_heads"] * d)
        shapes |= {f"{h}.mlp.dense_h_to_4h.weight": (2 * f, e), f"{h}.mlp.dense_4h_to_h.weight": (e, f)}
    return shapes | {
        "transformer.encoder.final_layernorm.weight": (e,),
        "transformer.output_layer.weight": (vocab, e),
    }


def _qwen(c: Mapping[str, Any]) -> Shapes:
    e, f, vocab = c["hidden_size"], c["intermediate_size"] // 2, c["vocab_size"]
    shapes: Shapes = {"transformer.wte.weight": (vocab, e)}
    for i in range(c["num_hidden_layers"]):
        h = f"transformer.h.{i}"
        shapes |= {f"{h}.ln_1.weight": (e,), f"{h}.ln_2.weight": (e,), f"{h}.attn.c_proj.weight": (e, e)}
        shapes |= module(f"{h}.attn.c_attn", (3 * e, e), True)
        shapes |= {f"{h}.mlp.w1.weight": (f, e), f"{h}.mlp.w2.weight": (f, e), f"{h}.mlp.c_proj.weight": (e, f)}
    return shapes | {"transformer.ln_f.weight": (e,), "lm_head.weight": (vocab, e)}


def _llamas(c: Mapping[str, Any]) -> Shapes:
    """aquila, telechat3, PanguEmbedded, baichuan, deepseek: names of llama."""
    kind, e, heads = c["model_type"], c["hidden_size"], c["num_attention_heads"]
    f, d, bias = c["intermediate_size"], c.get("head_dim") or e // heads, bool(c.get("attention_bias") or c.get("bias"))
    kv, shapes = c.get("num_key_value_heads") or heads, Shapes()
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        if kind == "baichuan":
            shapes[f"{h}.self_attn.W_pack.weight"] = (3 * e, e)
        else:
            for p, rows in (("q", heads), ("k", kv), ("v", kv)):
                shapes |= module(f"{h}.self_attn.{p}_proj", (rows * d, e), bias)
        shapes |= module(f"{h}.self_attn.o_proj", (e, heads * d), bias)
        if i < c.get("first_k_dense_replace", c["num_hidden_layers"]):
            shapes |= gated(f"{h}.mlp", f, e)
            continue
        width = c["moe_intermediate_size"]
        shapes[f"{h}.mlp.gate.weight"] = (c["n_routed_experts"], e)
        shapes |= experts(f"{h}.mlp.experts", c["n_routed_experts"], width, e)
        shapes |= gated(f"{h}.mlp.shared_experts", c["n_shared_experts"] * width, e)
    return whole(c, shapes)


def _telechat(c: Mapping[str, Any]) -> Shapes:
    e, f, vocab = c["hidden_size"], c["ffn_hidden_size"], c["vocab_size"]
    shapes: Shapes = {"transformer.word_embeddings.weight": (vocab, e)}
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{h}.self_attention.query.weight": (e, e), f"{h}.self_attention.key_value.weight": (2 * e, e)}
        shapes |= module(f"{h}.self_attention.dense", (e, e), True) | gated(f"{h}.mlp", f, e)
        shapes[f"{h}.mlp.down_proj.bias"] = (e,)
    return shapes | {"transformer.ln_f.weight": (e,), "lm_head.weight": (vocab, e)}


def _openelm(c: Mapping[str, Any]) -> Shapes:
    """By the names of llama, which those of its files become (test_published_families.py)."""
    e, d, shapes = c["model_dim"], c["head_dim"], Shapes()
    step = c["ffn_dim_divisor"]
    for i, (heads, kv) in enumerate(zip(c["num_query_heads"], c["num_kv_heads"], strict=True)):
        h, wanted = f"model.layers.{i}", c["ffn_multipliers"][i] * e
        f = round(wanted / step) * step
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{h}.self_attn.{name}.weight": (d,) for name in ("q_norm", "k_norm")}
        shapes[f"{h}.self_attn.qkv_proj.weight"] = ((heads + 2 * kv) * d, e)
        shapes[f"{h}.self_attn.o_proj.weight"] = (e, heads * d)
        shapes |= {f"{h}.mlp.gate_up_proj.weight": (2 * f, e), f"{h}.mlp.down_proj.weight": (e, f)}
    return {"model.embed_tokens.weight": (c["vocab_size"], e), **shapes, "model.norm.weight": (e,)}


def _ouro(c: Mapping[str, Any]) -> Shapes:
    e, heads, kv, d = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    shapes = Shapes()
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        norms = ("input_layernorm", "input_layernorm_2", "post_attention_layernorm", "post_attention_layernorm_2")
        shapes |= {f"{h}.{name}.weight": (e,) for name in norms} | gated(f"{h}.mlp", c["intermediate_size"], e)
        shapes |= {f"{h}.self_attn.{p}_proj.weight": (n * d, e) for p, n in (("q", heads), ("k", kv), ("v", kv))}
        shapes[f"{h}.self_attn.o_proj.weight"] = (e, heads * d)
    return whole(c, shapes)


def _deci(c: Mapping[str, Any]) -> Shapes:
    e, heads, shapes = c["hidden_size"], c["num_attention_heads"], Shapes()
    for i, kv in enumerate(c["num_key_value_heads_per_layer"]):
        h = f"model.layers.{i}"
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        rows = (("q", e), ("k", kv * e // heads), ("v", kv * e // heads), ("o", e))
        shapes |= {f"{h}.self_attn.{p}_proj.weight": (n, e) for p, n in rows}
        shapes |= gated(f"{h}.mlp", c["intermediate_size"], e)
    return whole(c, shapes)


def _jais(c: Mapping[str, Any]) -> Shapes:
    """Matrices as they are multiplied; in files they lie transposed."""
    e, f, shapes = c["n_embd"], c["n_inner"], Shapes()
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln_1", (e,), True) | module(f"{h}.ln_2", (e,), True)
        shapes |= module(f"{h}.attn.c_attn", (3 * e, e), True) | module(f"{h}.attn.c_proj", (e, e), True)
        shapes |= module(f"{h}.mlp.c_fc", (f, e), True) | module(f"{h}.mlp.c_fc2", (f, e), True)
        shapes |= module(f"{h}.mlp.c_proj", (e, f), True)
    return {"transformer.wte.weight": (c["vocab_size"], e), **shapes} | module("transformer.ln_f", (e,), True)


def _xglm(c: Mapping[str, Any]) -> Shapes:
    """With the table of positions, which is in no file."""
    e, f, shapes = c["d_model"], c["ffn_dim"], Shapes()
    for i in range(c["num_layers"]):
        h = f"model.layers.{i}"
        for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= module(f"{h}.self_attn.{p}", (e, e), True)
        shapes |= module(f"{h}.fc1", (f, e), True) | module(f"{h}.fc2", (e, f), True)
        shapes |= module(f"{h}.self_attn_layer_norm", (e,), True) | module(f"{h}.final_layer_norm", (e,), True)
    tables = {"model.embed_tokens.weight": (c["vocab_size"], e), SINES: (c["max_position_embeddings"], e)}
    return {**tables, **shapes} | module("model.layer_norm", (e,), True)


def _phi_msft(c: Mapping[str, Any]) -> Shapes:
    e, vocab, shapes = c["n_embd"], c["vocab_size"], Shapes()
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln", (e,), True) | module(f"{h}.mixer.Wqkv", (3 * e, e), True)
        shapes |= module(f"{h}.mixer.out_proj", (e, e), True)
        shapes |= module(f"{h}.mlp.fc1", (4 * e, e), True) | module(f"{h}.mlp.fc2", (e, 4 * e), True)
    ends = module("lm_head.ln", (e,), True) | module("lm_head.linear", (vocab, e), True)
    return {"transformer.embd.wte.weight": (vocab, e), **shapes, **ends}


def _stablelm_epoch(c: Mapping[str, Any]) -> Shapes:
    e, f, shapes = c["hidden_size"], c["intermediate_size"], Shapes()
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        shapes |= {f"{h}.self_attn.{p}_proj.weight": (e, e) for p in "qkvo"} | gated(f"{h}.mlp", f, e)
        shapes |= module(f"{h}.input_layernorm", (e,), True) | module(f"{h}.post_attention_layernorm", (e,), True)
    ends = {"lm_head.weight": (c["vocab_size"], e)} | module("model.norm", (e,), True)
    return {"model.embed_tokens.weight": (c["vocab_size"], e), **shapes, **ends}


def _openai_gpt(c: Mapping[str, Any]) -> Shapes:
    """Matrices as they are multiplied; in files they lie transposed."""
    e, shapes = c["n_embd"], Shapes()
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln_1", (e,), True) | module(f"{h}.ln_2", (e,), True)
        shapes |= module(f"{h}.attn.c_attn", (3 * e, e), True) | module(f"{h}.attn.c_proj", (e, e), True)
        shapes |= module(f"{h}.mlp.c_fc", (4 * e, e), True) | module(f"{h}.mlp.c_proj", (e, 4 * e), True)
    tables = {"transformer.tokens_embed.weight": (c["vocab_size"], e)}
    return {**tables, "transformer.positions_embed.weight": (c["n_positions"], e), **shapes}


#: Of XGLM, made as it is read.
SINES = "model.embed_positions.weights"
PUBLISHED: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {
    **dict.fromkeys(("aquila", "baichuan", "deepseek", "PanguEmbedded", "solar", "telechat3"), _llamas),
    "chatglm": _chatglm,
    "deci": _deci,
    "jais": _jais,
    "openai-gpt": _openai_gpt,
    "openelm": _openelm,
    "phi-msft": _phi_msft,
    "stablelm_epoch": _stablelm_epoch,
    "ouro": _ouro,
    "xglm": _xglm,
    "qwen": _qwen,
    "telechat": _telechat,
}
