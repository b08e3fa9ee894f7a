"""Tensor names and shapes of checkpoints of families that were published with code of their own: one short function a
family.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]


def _module(name: str, shape: tuple[int, ...], has_bias: bool) -> Shapes:
    """A module's weight and bias."""
    found: Shapes = {f"{name}.weight": shape}
    return found | ({f"{name}.bias": shape[:1]} if has_bias else {})


def _chatglm(c: Mapping[str, Any]) -> Shapes:
    e, f, d, vocab = c["hidden_size"], c["ffn_hidden_size"], c["kv_channels"], c["padded_vocab_size"]
    shapes: Shapes = {"transformer.embedding.word_embeddings.weight": (vocab, e)}
    rows = (c["num_attention_heads"] + 2 * c["multi_query_group_num"]) * d
    for i in range(c["num_layers"]):
        h = f"transformer.encoder.layers.{i}"
        shapes |= {f"{h}.{name}.weight": (e,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= _module(f"{h}.self_attention.query_key_value", (rows, e), c["add_qkv_bias"])
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
        shapes |= _module(f"{h}.attn.c_attn", (3 * e, e), True)
        shapes |= {f"{h}.mlp.w1.weight": (f, e), f"{h}.mlp.w2.weight": (f, e), f"{h}.mlp.c_proj.weight": (e, f)}
    return shapes | {"transformer.ln_f.weight": (e,), "lm_head.weight": (vocab, e)}


PUBLISHED: dict[str, Callable[[Mapping[str, Any]], Shapes]] = {"chatglm": _chatglm, "qwen": _qwen}
