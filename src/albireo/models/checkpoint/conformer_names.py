"""FastConformers, and decoders beside them, by the names that transformers gives their tensors: what NeMo calls them,
whose names are used here.

Called by whoever opens tensors. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

#: A tensor that every one has, alone or in a whole.
SUBSAMPLING = "encoder.subsampling.linear.weight"
OF_WHOLE = f"model.{SUBSAMPLING}"
_ENCODER, _DECODER = "encoder.", "model.decoder."
_PARTS = {
    # of those that hear as a sound comes
    "encoder.subsampling.conv_in.": "encoder.pre_encode.conv.0.",
    "encoder.subsampling.layers.0.depthwise_conv.": "encoder.pre_encode.conv.2.",
    "encoder.subsampling.layers.0.pointwise_conv.": "encoder.pre_encode.conv.3.",
    "encoder.subsampling.layers.1.depthwise_conv.": "encoder.pre_encode.conv.5.",
    "encoder.subsampling.layers.1.pointwise_conv.": "encoder.pre_encode.conv.6.",
    "encoder.subsampling.layers.": "encoder.pre_encode.conv.",
    "encoder.subsampling.linear.": "encoder.pre_encode.out.",
    ".self_attn.q_proj.": ".self_attn.linear_q.",
    ".self_attn.k_proj.": ".self_attn.linear_k.",
    ".self_attn.v_proj.": ".self_attn.linear_v.",
    ".self_attn.o_proj.": ".self_attn.linear_out.",
    ".self_attn.relative_k_proj.": ".self_attn.linear_pos.",
    ".self_attn.bias_u": ".self_attn.pos_bias_u",
    ".self_attn.bias_v": ".self_attn.pos_bias_v",
    ".conv.norm.": ".conv.batch_norm.",
}
#: What lies beside the encoder, and is no head: what is told the language; what makes rows as wide as an LSTM's; that.
_BESIDE = ("encoder_projector.", "prompt_projector.", "decoder.")
#: Of a decoder with attention.
_OF_DECODER = {
    "model.decoder.embed_tokens.": "transf_decoder._embedding.token_embedding.",
    "model.decoder.embedding_layernorm.": "transf_decoder._embedding.layer_norm.",
    "model.decoder.norm.": "transf_decoder._decoder.final_layer_norm.",
    "model.decoder.layers.": "transf_decoder._decoder.layers.",
    ".input_layernorm.": ".layer_norm_1.",
    ".post_attention_layernorm.": ".layer_norm_2.",
    ".final_layernorm.": ".layer_norm_3.",
    ".self_attn.": ".first_sub_layer.",
    ".encoder_attn.": ".second_sub_layer.",
    ".mlp.fc1.": ".third_sub_layer.dense_in.",
    ".mlp.fc2.": ".third_sub_layer.dense_out.",
    ".q_proj.": ".query_net.",
    ".k_proj.": ".key_net.",
    ".v_proj.": ".value_net.",
    ".o_proj.": ".out_projection.",
}
_HEAD = "proj_out."
#: Of its layers what listens to the encoder.
_LISTENS = (".encoder_attn.k_proj.", ".encoder_attn.v_proj.")


def names_of_conformer(names: Iterable[str]) -> dict[str, str]:
    """By the name in the file, of what is no head and no decoder; empty: it is none by those names."""
    names = list(names)
    if SUBSAMPLING not in names and OF_WHOLE not in names:
        return {}
    found = {name: name for name in names if name.startswith(_BESIDE)}
    for name in names:
        if name.removeprefix("model.").startswith(_ENCODER):
            found[name] = _renamed(name.removeprefix("model."), _PARTS)
        elif name.startswith(_DECODER) and any(part in name for part in _LISTENS):
            found[name] = _renamed(name, _OF_DECODER)
    return found


def names_of_decoder(names: Iterable[str]) -> dict[str, str]:
    """By the name in the file, of a decoder with attention, and of its head."""
    names = list(names)
    found = {name: _renamed(name, _OF_DECODER) for name in names if name.startswith(_DECODER)}
    return found | {name: f"lm_head.{name.removeprefix(_HEAD)}" for name in names if name.startswith(_HEAD)}


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for old, new in parts.items():
        name = name.replace(old, new)
    return name
