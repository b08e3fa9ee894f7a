"""Encoders as they were first published, with code of their own and before transformers had their classes: what their
tensors are called in those. joined_linears.py takes apart what lies in one. And decoders whose tensors transformers
calls otherwise than their authors do.

Called by text_tensors.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: Of nomic-embed-text and jina-embeddings-v3, which are told by the norm of their embeddings.
_FLASH = {
    "emb_ln.": "embeddings.LayerNorm.",
    "encoder.layers.": "layers.",
    ".attn.Wqkv.": ".self_attn.qkv_proj.",
    ".attn.out_proj.": ".self_attn.o_proj.",
    ".mixer.Wqkv.": ".self_attn.qkv_proj.",
    ".mixer.out_proj.": ".self_attn.o_proj.",
    ".norm1.": ".post_attention_layernorm.",
    ".norm2.": ".post_mlp_layernorm.",
}
#: Of those that are XLM-RoBERTa, jina-reranker-v2, told by their table of positions.
_ROBERTA = {
    "emb_ln.": "embeddings.LayerNorm.",
    "encoder.layers.": "encoder.layer.",
    ".mixer.Wqkv.": ".attention.self.qkv.",
    ".mixer.out_proj.": ".attention.output.dense.",
    ".norm1.": ".attention.output.LayerNorm.",
    ".norm2.": ".output.LayerNorm.",
    ".mlp.fc1.": ".intermediate.dense.",
    ".mlp.fc2.": ".output.dense.",
}
#: Of FFNs with a gate among these.
_GATED = {".mlp.fc11.": ".mlp.up_proj.", ".mlp.fc12.": ".mlp.gate_proj.", ".mlp.fc2.": ".mlp.down_proj."}
#: Of gte.
_GTE = {
    "encoder.layer.": "layers.",
    ".attention.qkv_proj.": ".self_attn.qkv_proj.",
    ".attention.o_proj.": ".self_attn.o_proj.",
    ".attn_ln.": ".post_attention_layernorm.",
    ".mlp_ln.": ".post_mlp_layernorm.",
}
#: Of Mistral Large 4, of its tower too.
_LARGE4 = {
    ".attention.wq.": ".self_attn.q_proj.",
    ".attention.wkv_a_with_mqa.": ".self_attn.kv_a_proj_with_mqa.",
    ".attention.wkv_b.": ".self_attn.kv_b_proj.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".attention.kv_a_norm.": ".self_attn.kv_a_layernorm.",
    ".attention.": ".self_attn.",
    ".ssmax_scaling.s": ".softmax_scaling.scale",
    ".ssmax_scaling.b": ".softmax_scaling.bias",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
    ".feed_forward.": ".mlp.",
    ".gate.": ".mlp.gate.",
    ".experts.": ".mlp.experts.",
    ".shared_experts.": ".mlp.shared_experts.",
    ".w1.": ".gate_proj.",
    ".w2.": ".down_proj.",
    ".w3.": ".up_proj.",
}
#: Of decoders: what tells such names, and what parts of them are here.
_DECODERS: Mapping[str, Mapping[str, str]] = {
    # A.X K2, as transformers has it in memory
    ".self_attn.q_gate_proj.": {
        ".self_attn.q_gate_proj.": ".self_attn.q_b_proj.",
        "_layernorm.mlp.fc1.": "_layernorm.W_down.",
        "_layernorm.mlp.fc2.": "_layernorm.W_up.",
    },
    # Step 3.5
    ".moe.router_bias": {
        ".moe.gate.": ".mlp.gate.",
        ".moe.router_bias": ".mlp.gate.e_score_correction_bias",
        ".share_expert.": ".mlp.shared_experts.",
    },
    # InternLM 2
    ".attention.wqkv.": {
        "model.tok_embeddings.": "model.embed_tokens.",
        ".attention.wqkv.": ".self_attn.qkv_proj.",
        ".attention.wo.": ".self_attn.o_proj.",
        ".attention_norm.": ".input_layernorm.",
        ".ffn_norm.": ".post_attention_layernorm.",
        ".feed_forward.w1.": ".mlp.gate_proj.",
        ".feed_forward.w2.": ".mlp.down_proj.",
        ".feed_forward.w3.": ".mlp.up_proj.",
        "output.weight": "lm_head.weight",
    },
    # OpenELM
    ".ffn.proj_1.": {
        "transformer.token_embeddings.": "model.embed_tokens.",
        "transformer.": "model.",
        ".attn.out_proj.": ".self_attn.o_proj.",
        ".attn.": ".self_attn.",
        ".attn_norm.": ".input_layernorm.",
        ".ffn_norm.": ".post_attention_layernorm.",
        ".ffn.proj_1.": ".mlp.gate_up_proj.",
        ".ffn.proj_2.": ".mlp.down_proj.",
    },
    # DeepSeek V4, as its authors have it; transformers calls some norms otherwise
    ".attn.attn_sink": {
        ".scale": ".weight_scale_inv",
        ".attn.indexer.compressor.": ".self_attn.compressor.indexer.",
        ".attn.indexer.wq_b.": ".self_attn.compressor.indexer.q_b_proj.",
        ".attn.indexer.weights_proj.": ".self_attn.compressor.indexer.scorer.weights_proj.",
        ".attn.norm.": ".self_attn.kv_norm.",
        ".attn.": ".self_attn.",
        ".compressor.norm.": ".compressor.kv_norm.",
        ".indexer.norm.": ".indexer.kv_norm.",
        ".ape": ".position_bias",
        ".wkv.": ".kv_proj.",
        ".wgate.": ".gate_proj.",
        ".wq_a.": ".q_a_proj.",
        ".wq_b.": ".q_b_proj.",
        ".wo_a.": ".o_a_proj.",
        ".wo_b.": ".o_b_proj.",
        ".q_norm.": ".q_a_norm.",
        ".attn_sink": ".sinks",
        ".attn_norm.": ".input_layernorm.",
        ".ffn_norm.": ".post_attention_layernorm.",
        ".ffn.": ".mlp.",
        ".gate.bias": ".gate.e_score_correction_bias",
        ".w1.": ".gate_proj.",
        ".w2.": ".down_proj.",
        ".w3.": ".up_proj.",
        ".hc_attn_": ".attn_hc.",
        ".hc_ffn_": ".ffn_hc.",
    },
    # the same, as transformers writes what it has read by its own names
    ".self_attn.q_a_norm.": {
        ".self_attn.norm.": ".self_attn.kv_norm.",
        ".compressor.norm.": ".compressor.kv_norm.",
        ".indexer.norm.": ".indexer.kv_norm.",
    },
    # HRM-Text
    ".attn.gqkv_proj.": {".attn.o_proj.": ".self_attn.o_proj."},
    # Dory
    ".sqk": {".self_attn.g_proj.": ".self_attn.gate_proj."},
    # its tower lies alone where it was built
    **dict.fromkeys(("lerope.alpha", "vision_language_adapter.w_in."), _LARGE4),
    # GLM-5.3
    ".hc_attn_fn": {".hc_attn_": ".attn_hc.", ".hc_ffn_": ".ffn_hc."},
    # Hunyuan 4, as its authors have it
    ".self_attn.learnable_sink_param": {
        ".hc_pre.hc_": ".hc_",
        ".learnable_sink_param": ".sinks",
        ".linear_gate.": ".gate_proj.",
        ".hc_attn_layer.hc_": ".attn_hc.",
        ".hc_mlp_layer.hc_": ".ffn_hc.",
        ".hc_head_": ".hc_",
    },
}


#: Of Dory, whose attention and FFN are told apart: what each has that lies in no block -> what it is here.
_RATES = {"attn_alpha": "lambda_1", "mlp_alpha": "lambda_2"}
#: What lies in no block, in either of the two.
_ENDS = (
    *(("backbone.embeddings.", "model.embed_tokens."), ("backbone.", "model.")),
    *(("model.", "model."), ("lm_head.", "lm_head.")),
)
_BLOCKS, _MOST_DIGITS = "backbone.layers.", 9


def name_of_block(name: str) -> tuple[str, str] | None:
    """What a name of Dory begins with, and what it is to begin with: as published, or as transformers writes it; None:
    it begins with neither."""
    number, _, rest = name.removeprefix(_BLOCKS).partition(".")
    if name.startswith(_BLOCKS) and number.isdecimal() and len(number) <= _MOST_DIGITS:
        block, layer = f"{_BLOCKS}{number}.", f"model.layers.{int(number) // 2}."
        if rest.startswith("mixer."):
            return f"{block}mixer.", f"{layer}{'mlp' if int(number) % 2 else 'self_attn'}."
        found = next((old for old in _RATES if rest.startswith(old)), None)
        if found is not None:
            return block + found, layer + _RATES[found]
    return next(((old, new) for old, new in _ENDS if name.startswith(old)), None)


def renames(names: Iterable[str]) -> Mapping[str, str]:
    """Parts of names -> what they are here; empty: names are those of transformers. Args: names: of all tensors."""
    found = tuple(names)
    for telling, parts in _DECODERS.items():
        if any(telling in name for name in found):
            return parts
    if not any("embeddings.word_embeddings." in name for name in found):
        return {}
    if any(name.endswith("emb_ln.weight") for name in found):
        if any("embeddings.position_embeddings." in name for name in found):
            return _ROBERTA
        return {**_FLASH, **(_GATED if any(".mlp.fc11." in name for name in found) else {})}
    return _GTE if any(".0.attention.qkv_proj." in name for name in found) else {}
