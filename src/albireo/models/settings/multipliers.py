"""Multipliers: the constant numbers by which some architectures multiply what others take as it is.

Called by config.py. Does not know graphs: blocks/layers.py says where each of them goes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from albireo.json_file import Fields

#: Far outside what checkpoints have, and such that squares and inverses stay in float32.
_LEAST, _MOST = 1e-6, 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Multipliers:
    """Each is neutral unless a config.json says otherwise.

    Fields:
        embedding: on embeddings; None: the root of the hidden size, as the compute type has it.
        residual: on what attention and FFN add to the residual stream.
        attention: on attention scores; None: 1 / sqrt(head_dim). scores: on them, besides.
        logits: what logits are divided by.
        attention_cap, logits_cap: scores and logits become cap * tanh(x / cap).
        norm_plus: what is added to a norm's weights as they are stored.
        attention_out: on what attention adds, gate: on what the activation of an FFN reads. Both, as residual, are of
            what linears give.
        qkv_limit: queries, keys and values are kept between -this and this, behind norms of all heads and before those
            of each.
    """

    embedding: float | None = 1.0
    residual: float = 1.0
    attention: float | None = None
    logits: float = 1.0
    attention_cap: float | None = None
    logits_cap: float | None = None
    norm_plus: float = 0.0
    scores: float = 1.0
    attention_out: float = 1.0
    gate: float = 1.0
    qkv_limit: float | None = None


#: Of Gemma: embeddings are multiplied by the root of the width, and norms by their weight plus 1.
GEMMA = Multipliers(embedding=None, norm_plus=1.0)


def parse_multipliers(fields: Fields, keys: frozenset[str], built_in: Multipliers) -> Multipliers:
    """Read the keys that an architecture honours; the others are left unread.

    Args: built_in: what holds where no key that is honoured says another number.
    Raises: ModelError for a value outside of what can be computed.
    """

    def of(key: str) -> float | None:
        return fields.optional_number(key, _LEAST, _MOST) if key in keys else None

    attention, queries = of("attention_multiplier"), of("query_pre_attn_scalar")
    said = {
        "embedding": of("embedding_multiplier"),
        "residual": of("residual_multiplier"),
        "attention": queries**-0.5 if queries is not None else attention,
        "logits": of("logits_scaling") or 1.0 / (of("logit_scale") or 1.0),
        "attention_cap": of("attn_logit_softcapping"),
        "logits_cap": of("final_logit_softcapping"),
        "qkv_limit": of("clip_qkv"),
    }
    if "scale_depth" in keys:  # of MiniCPM: of all blocks together, and how much wider it is than another model
        depth, base = (
            fields.optional_number("scale_depth", _LEAST, _MOST),
            fields.optional_number("dim_model_base", _LEAST, _MOST),
        )
        said["residual"] = None if depth is None else depth / fields.integer("num_hidden_layers", 1, 2**12) ** 0.5
        said["logits"] = None if base is None else fields.integer("hidden_size", 1, 2**20) / base
    if "mup_enabled" in keys and fields.flag("mup_enabled", False):  # the root is not rounded
        said["embedding"] = fields.integer("hidden_size", 1, 2**20) ** 0.5
    return replace(built_in, **{name: number for name, number in said.items() if number is not None})


def nearest(number: float, dtype: str) -> float:
    """The number of a compute type that is nearest, of two the even one."""
    if dtype == "float16":
        return float(struct.unpack("<e", struct.pack("<e", number))[0])
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    if dtype == "bfloat16":
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])
