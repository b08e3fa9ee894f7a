"""FastConformers by the names that transformers gives their tensors: what NeMo, whose names are used here, calls them.

Called by whoever opens tensors. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Iterable

#: A tensor that every one has.
SUBSAMPLING = "encoder.subsampling.linear.weight"
_ENCODER = "encoder."
_PARTS = {
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
#: What lies beside the encoder, and is no head: what makes its rows as wide as an LSTM's, and that.
_BESIDE = ("encoder_projector.", "decoder.")


def names_of_conformer(names: Iterable[str]) -> dict[str, str]:
    """By the name in the file, of what is no head of it; empty: it is none by those names."""
    names = list(names)
    if SUBSAMPLING not in names:
        return {}
    found = {name: name for name in names if name.startswith(_BESIDE)}
    for name in names:
        if name.startswith(_ENCODER):
            renamed = name
            for old, new in _PARTS.items():
                renamed = renamed.replace(old, new)
            found[name] = renamed
    return found
