"""Tensor names and shapes of checkpoints of models with a LayerNorm, as transformers writes them.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_parts import Shapes, module, words

#: Architectures whose norms subtract the mean.
LAYER_NORMS = words(
    "biogpt bloom codegen cohere cohere2 cohere_compass_text falcon gpt2 gpt_bigcode gpt_neo gpt_neox gptj jais2 "
    "mpt nemotron olmo opt orion phi stablelm starcoder2"
)
_OF_GPT = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}
#: What some of them call keys that others have, too.
KEYS = {
    **dict.fromkeys(("codegen", "gpt2", "gpt_bigcode", "gptj"), _OF_GPT),
    "gpt_neo": {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
    "opt": {"intermediate_size": "ffn_dim"},
    "bloom": {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head", "max_position_embeddings": "seq_length"},
    "dbrx": {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
    },
    "mpt": {
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
    },
    "jais": _OF_GPT,
    "openai-gpt": _OF_GPT,
    "phi-msft": _OF_GPT,
    "xglm": {
        "hidden_size": "d_model",
        "intermediate_size": "ffn_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "attention_heads",
    },
    "falcon": {"intermediate_size": "ffn_hidden_size"},
    "chatglm": {"num_hidden_layers": "num_layers", "max_position_embeddings": "seq_length"},
    "openelm": {"max_position_embeddings": "max_context_length", "num_hidden_layers": "num_transformer_layers"},
    "qwen": {"max_position_embeddings": "seq_length"},
    "telechat": {
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "training_seqlen",
    },
}
#: Whose heads all have keys and values of their own, or whose files say otherwise which do.
_WITHOUT_KV_HEADS = words(
    "baichuan deci openai-gpt jais openelm qwen telechat xglm biogpt bloom mpt codegen gpt2 gpt_bigcode gpt_neo "
    "gptj opt gpt_neox falcon"
)


#: Architectures that have no rope_scaling.
NOT_ROTATING = words(
    "biogpt bloom falcon_mamba gpt2 jais openai-gpt xglm gpt_bigcode gpt_neo jamba kimi_linear mamba mamba2 mpt "
    "nemotron_h opt"
)


def with_changes(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with changes by the names of keys that most architectures have; those it has no use for are left out."""
    kind = config["model_type"]
    found = {KEYS.get(kind, {}).get(key, key): value for key, value in changes.items()}
    if kind in LAYER_NORMS:
        found.pop("head_dim", None)
    if kind in _WITHOUT_KV_HEADS:
        found.pop("num_key_value_heads", None)
    if kind == "opt" and "hidden_size" in found:
        found["word_embed_proj_dim"] = found["hidden_size"]
    # whose FFNs are four times as wide as they are, or said in ffn_config, or not there
    if kind in ("bloom", "dbrx", "kolibri1", "mpt"):
        found.pop("intermediate_size", None)
    if kind in NOT_ROTATING:
        found.pop("rope_scaling", None)
    return {**config, **found}


def layer_norm_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of one of LAYER_NORMS, as it is read; see as_stored().

    Others are in tiny_decoders.py.
    """
    return _OF[config["model_type"]](config)


def as_stored(config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """The tensors of a checkpoint as its file has them: the matrices of GPT-2's layers lie transposed, and norms of
    Cohere's heads are rows."""
    is_gpt2 = config["model_type"] in ("gpt2", "jais", "openai-gpt")
    if config.get("use_qk_norm") and config["model_type"] == "cohere":  # a row of each head
        d = config["hidden_size"] // config["num_attention_heads"]
        return {
            n: t.reshape(-1, d) if n.endswith(("q_norm.weight", "k_norm.weight")) else t for n, t in tensors.items()
        }
    return {name: np.ascontiguousarray(t.T) if is_gpt2 and ".h." in name else t for name, t in tensors.items()}


def _gpt2(c: Mapping[str, Any]) -> Shapes:
    e = c["n_embd"]
    f = c.get("n_inner") or 4 * e
    shapes: Shapes = {"transformer.wte.weight": (c["vocab_size"], e), "transformer.wpe.weight": (c["n_positions"], e)}
    for i in range(c["n_layer"]):
        h = f"transformer.h.{i}"
        shapes |= module(f"{h}.ln_1", (e,), True)
        shapes |= module(f"{h}.attn.c_attn", (3 * e, e), True) | module(f"{h}.attn.c_proj", (e, e), True)
        shapes |= module(f"{h}.mlp.c_fc", (f, e), True) | module(f"{h}.mlp.c_proj", (e, f), True)
        shapes |= module(f"{h}.ln_2", (e,), True)
    shapes |= module("transformer.ln_f", (e,), True)
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)})


def _opt(c: Mapping[str, Any]) -> Shapes:
    e, f = c["hidden_size"], c["ffn_dim"]
    bias, affine = c.get("enable_bias", True), c.get("layer_norm_elementwise_affine", True)
    d = "model.decoder"
    shapes: Shapes = {f"{d}.embed_tokens.weight": (c["vocab_size"], e)}
    shapes[f"{d}.embed_positions.weight"] = (c["max_position_embeddings"] + 2, e)
    for i in range(c["num_hidden_layers"]):
        for p in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= module(f"{d}.layers.{i}.self_attn.{p}", (e, e), bias)
        shapes |= module(f"{d}.layers.{i}.fc1", (f, e), bias) | module(f"{d}.layers.{i}.fc2", (e, f), bias)
        for norm in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= module(f"{d}.layers.{i}.{norm}", (e,), True) if affine else {}
    shapes |= module(f"{d}.final_layer_norm", (e,), True) if affine else {}
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)})


def _gpt_neox(c: Mapping[str, Any]) -> Shapes:
    e, f = c["hidden_size"], c["intermediate_size"]
    shapes: Shapes = {"gpt_neox.embed_in.weight": (c["vocab_size"], e)}
    for i in range(c["num_hidden_layers"]):
        h = f"gpt_neox.layers.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= module(f"{h}.{norm}", (e,), True)
        bias = c.get("attention_bias", True)
        shapes |= module(f"{h}.attention.query_key_value", (3 * e, e), bias)
        shapes |= module(f"{h}.attention.dense", (e, e), bias)
        shapes |= module(f"{h}.mlp.dense_h_to_4h", (f, e), True)
        shapes |= module(f"{h}.mlp.dense_4h_to_h", (e, f), True)
    shapes |= module("gpt_neox.final_layer_norm", (e,), True)
    return shapes | ({} if c["tie_word_embeddings"] else {"embed_out.weight": (c["vocab_size"], e)})


def _falcon(c: Mapping[str, Any]) -> Shapes:
    e, bias = c["hidden_size"], c["bias"]
    f = c.get("ffn_hidden_size") or 4 * e
    heads, is_new = c["num_attention_heads"], c["new_decoder_architecture"]
    kv = c["num_kv_heads"] if is_new else 1 if c["multi_query"] else heads
    rows = (heads + 2 * kv) * e // heads
    two = is_new and c.get("num_ln_in_parallel_attn", 2) == 2
    norms = ["ln_attn", "ln_mlp"] if two else ["input_layernorm"]
    if not c["parallel_attn"]:
        norms.append("post_attention_layernorm")
    shapes: Shapes = {"transformer.word_embeddings.weight": (c["vocab_size"], e)}
    for i in range(c["num_hidden_layers"]):
        h = f"transformer.h.{i}"
        for norm in norms:
            shapes |= module(f"{h}.{norm}", (e,), True)
        shapes |= module(f"{h}.self_attention.query_key_value", (rows, e), bias)
        shapes |= module(f"{h}.self_attention.dense", (e, e), bias)
        shapes |= module(f"{h}.mlp.dense_h_to_4h", (f, e), bias)
        shapes |= module(f"{h}.mlp.dense_4h_to_h", (e, f), bias)
    shapes |= module("transformer.ln_f", (e,), True)
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)})


def _bloom(c: Mapping[str, Any]) -> Shapes:
    e, t = c["hidden_size"], "transformer"
    shapes: Shapes = {f"{t}.word_embeddings.weight": (c["vocab_size"], e)}
    shapes |= module(f"{t}.word_embeddings_layernorm", (e,), True)
    for i in range(c["n_layer"]):
        h = f"{t}.h.{i}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes |= module(f"{h}.{norm}", (e,), True)
        shapes |= module(f"{h}.self_attention.query_key_value", (3 * e, e), True)
        shapes |= module(f"{h}.self_attention.dense", (e, e), True)
        shapes |= module(f"{h}.mlp.dense_h_to_4h", (4 * e, e), True)
        shapes |= module(f"{h}.mlp.dense_4h_to_h", (e, 4 * e), True)
    shapes |= module(f"{t}.ln_f", (e,), True)
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)})


def _mpt(c: Mapping[str, Any]) -> Shapes:
    e, t = c["d_model"], "transformer"
    shapes: Shapes = {f"{t}.wte.weight": (c["vocab_size"], e)}
    for i in range(c["n_layers"]):
        h = f"{t}.blocks.{i}"
        shapes |= {f"{h}.norm_{n}.weight": (e,) for n in (1, 2)}
        shapes |= {f"{h}.attn.Wqkv.weight": (3 * e, e), f"{h}.attn.out_proj.weight": (e, e)}
        shapes |= {f"{h}.ffn.up_proj.weight": (4 * e, e), f"{h}.ffn.down_proj.weight": (e, 4 * e)}
    shapes[f"{t}.norm_f.weight"] = (e,)
    return shapes | ({} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], e)})


def _of_model(c: Mapping[str, Any]) -> Shapes:
    """phi, starcoder2, stablelm and cohere, whose names begin with model.layers."""
    kind, e, f = c["model_type"], c["hidden_size"], c["intermediate_size"]
    head_dim = e // c["num_attention_heads"]
    q, kv = e, c["num_key_value_heads"] * head_dim
    everywhere = kind == "phi" or (kind == "starcoder2" and c["use_bias"])
    in_qkv = everywhere or bool(c.get("use_qkv_bias") or c.get("attention_bias"))
    in_o = everywhere or bool(c.get("attention_bias"))
    has_two = kind == "starcoder2" or (kind == "stablelm" and not c["use_parallel_residual"])
    shapes: Shapes = {"model.embed_tokens.weight": (c["vocab_size"], e)}
    for i in range(c["num_hidden_layers"]):
        h = f"model.layers.{i}"
        for p, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes |= module(f"{h}.self_attn.{p}_proj", (rows, e), in_qkv)
        shapes |= module(f"{h}.self_attn.{'dense' if kind == 'phi' else 'o_proj'}", (e, q), in_o)
        if kind in ("phi", "starcoder2"):
            up, down = ("fc1", "fc2") if kind == "phi" else ("c_fc", "c_proj")
            shapes |= module(f"{h}.mlp.{up}", (f, e), everywhere)
            shapes |= module(f"{h}.mlp.{down}", (e, f), everywhere)
        else:
            for p, shape in (("gate", (f, e)), ("up", (f, e)), ("down", (e, f))):
                shapes[f"{h}.mlp.{p}_proj.weight"] = shape
        for p, count in (("q", c["num_attention_heads"]), ("k", c["num_key_value_heads"])):
            if c.get("use_qk_norm"):
                shapes[f"{h}.self_attn.{p}_norm.weight"] = (count * head_dim,)
            if c.get("qk_layernorm"):
                shapes |= {f"{h}.self_attn.{p}_layernorm.norms.{n}.weight": (head_dim,) for n in range(count)}
        for norm in ("input_layernorm", *(("post_attention_layernorm",) if has_two else ())):
            shapes |= module(f"{h}.{norm}", (e,), kind != "cohere")
    shapes |= module("model.final_layernorm" if kind == "phi" else "model.norm", (e,), kind != "cohere")
    if c["tie_word_embeddings"]:
        return shapes
    return shapes | module("lm_head", (c["vocab_size"], e), kind == "phi")


_OF = {
    "gpt2": _gpt2,
    "opt": _opt,
    "gpt_neox": _gpt_neox,
    "bloom": _bloom,
    "falcon": _falcon,
    "mpt": _mpt,
    **dict.fromkeys(("phi", "starcoder2", "stablelm", "cohere"), _of_model),
}
