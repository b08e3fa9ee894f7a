"""RopeSettings: the rotary-embedding part of a config.json, checked.

Called by config.py; turned into numbers by rope.py. Accepts the form before transformers 5 (rope_theta beside
rope_scaling) and the form since (rope_parameters). Does not know frequencies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from albireo.errors import short
from albireo.json_file import Fields

#: Rope types that rope.py computes.
ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "llama3", "longrope", "freq_factors", "proportional")
#: What longrope was first called, and yarn by some.
_ALIASES = {"su": "longrope", "deepseek_yarn": "yarn"}
#: What transformers calls layers without and with a window.
_OF_LAYERS = ("full_attention", "sliding_attention")
_CHOOSING, _HYBRID = "indexed_attention", ("hybrid", "hybrid_sliding")

MAX_POSITIONS = 2**28
MAX_FACTOR = float(MAX_POSITIONS)  # because the shortest original context is one token
MIN_THETA = 2.0  # yarn divides by its logarithm
MAX_THETA = 1e15  # no checkpoint is near it; keeps theta**1 and its inverse in float32
DEFAULT_THETA = 10000.0
MAX_LOG_FACTOR = 40.0  # a factor of 2e17: with it, and with its inverse, frequencies stay float32 numbers

#: A note of the training script; inference never read it.
_IGNORABLE = ("finetuned",)


@dataclass(frozen=True, slots=True)
class RopeSettings:
    """What the model says about rotary embedding.

    Fields:
        rope_type: one of ROPE_TYPES.
        theta: base of the frequencies.
        factor: how much longer than original_max_position_embeddings the context is.
        original_max_position_embeddings: context of pretraining.
        low_freq_factor, high_freq_factor: llama3 only.
        freq_factors: what each frequency is divided by; of that type only, which GGUF files have.
        attention_factor: yarn and longrope. mscale, mscale_all_dim, beta_fast, beta_slow, truncate: yarn only.
        short_factors, long_factors: longrope only: what each frequency is divided by, for sequences of up to
            original_max_position_embeddings, and for longer ones.
        short_mscale, long_mscale: longrope only: the attention factor, by the length of sequences; None: one for both.
        turning_part: proportional only: which part of the pairs turns, the first ones; frequencies are those of all.
        log_factors: by the exponential of which each frequency is multiplied; empty: by nothing.
        partial_rotary_factor: which part of a head's channels is rotated: the first ones.
        query_growth: queries at positions from original_max_position_embeddings on are multiplied by a number that
            grows with the logarithm of the position, times this; 0: they are not.
    """

    rope_type: str = "default"
    theta: float = DEFAULT_THETA
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    freq_factors: tuple[float, ...] = ()
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    short_mscale: float | None = None
    long_mscale: float | None = None
    turning_part: float = 1.0
    log_factors: tuple[float, ...] = ()
    partial_rotary_factor: float = 1.0
    query_growth: float = 0.0

    @property
    def score_growth(self) -> float:
        """What latent attention multiplies queries and keys with, each, where yarn stretches the context."""
        return self.growth(self.mscale_all_dim or 0.0)

    def growth(self, mscale: float) -> float:
        """Source: Peng et al. 2023, YaRN; of mscale 1 their temperature."""
        return 1.0 if self.factor <= 1 else 0.1 * mscale * math.log(self.factor) + 1.0


def parse_ropes(
    fields: Fields,
    where: str,
    max_position_embeddings: int,
    keys: frozenset[str],
    *,
    has_local: bool = False,
    local_theta: float | None = DEFAULT_THETA,
    head_dim: int = 0,
) -> tuple[RopeSettings, RopeSettings | None]:
    """Read the rope keys of a config: the settings of all layers; or those of layers without and with a window.

    Args:
        keys: of partial_rotary_factor, rotary_dim, llama_4_scaling_beta, log_factors, alpha and long_mscale (with
            short_mscale) those that are honoured; and
            qk_rope_head_dim, where a factor may repeat it. alpha, of a type called dynamic: a fixed base instead,
            larger by its power. ntk: there is a type called so.
        has_local: layers with a window rotate by frequencies of their own. local_theta: their base where the file does
            not say; None: that of the others.
        head_dim: of which rotary_dim is a part.
    Raises: ModelError for a bad value; UnsupportedModel for a rope type or key that is not computed.
    """
    table = _one_table(fields)
    theta = fields.number("rope_theta", MIN_THETA, MAX_THETA, default=DEFAULT_THETA)
    partial = fields.integer("rotary_dim", 2, head_dim, default=head_dim) / head_dim if "rotary_dim" in keys else 1.0
    if not has_local:
        return _parse_rope(fields, table, where, max_position_embeddings, theta, keys, partial, head_dim), None
    default = theta if local_theta is None else local_theta
    local_theta = fields.number("rope_local_base_freq", MIN_THETA, MAX_THETA, default=default)
    inner = Fields(table, f"{where}: rope settings")
    # of layers without a window that choose what they see, or of layers that have states beside attention
    kinds = (_CHOOSING, _OF_LAYERS[1]) if _CHOOSING in table else _OF_LAYERS
    if _HYBRID[0] in table:
        kinds = _HYBRID
        inner.raw("rope_type")  # said once more, of none of them
    if fields.table("rope_parameters") and not any(name in table for name in kinds):
        fields.fail(
            "rope_parameters", table, f"must say how {kinds[0]} rotates and how {kinds[1]} does, each by itself"
        )
    nested = tuple(inner.table(name) if name in table else None for name in kinds)
    # before transformers 5 what rope_scaling says was meant for layers without a window
    tables = (nested[0] or {}, nested[1] or {}) if any(name in table for name in kinds) else (table, {})
    if tables[0] is not table:
        inner.refuse_unread((), {})
    of_all = _parse_rope(fields, tables[0], where, max_position_embeddings, theta, keys)
    return of_all, _parse_rope(fields, tables[1], where, max_position_embeddings, local_theta, keys)


def parse_pooled_ropes(
    fields: Fields, max_position_embeddings: int, head_dim: int, rotary: int
) -> tuple[RopeSettings, RopeSettings]:
    """Those of DeepSeek V4's layers without entries of several positions, and of those with them: a table of each; or
    one table, which is of the latter, whose base is another.

    Args: rotary: of a head's channels; tables may repeat it as a part.
    Raises: as parse_ropes().
    """
    table, part = _one_table(fields), rotary / head_dim
    bases = fields.number("rope_theta", MIN_THETA, MAX_THETA, default=DEFAULT_THETA)
    other = fields.number("compress_rope_theta", MIN_THETA, MAX_THETA, default=160000.0)
    inner, names = Fields(table, f"{fields.where}: rope settings"), ("main", "compress")
    tables: dict[str, Any] = {name: inner.table(name) for name in names if name in table}
    if len(tables) == 1:
        fields.fail("rope_parameters", table, "must be one of main and one of compress, or neither")
    if tables:
        inner.refuse_unread((), {})
    else:
        # as transformers has it: the base in such a table is that beside it
        rest = {key: value for key, value in table.items() if key != "rope_theta"}
        if rest.get("rope_type", rest.get("type")) == "yarn":
            rest = {"attention_factor": 1.0, **rest}
        tables = {"main": {}, "compress": rest}
    found = []
    for name, base in (("main", bases), ("compress", other)):
        own, keys = tables[name] or {}, frozenset({"partial_rotary_factor"})
        rope = _parse_rope(fields, own, fields.where, max_position_embeddings, base, keys, part)
        if int(head_dim * rope.partial_rotary_factor) != rotary:
            what = f"must be {part:g}: {rotary} of {head_dim} channels are rotated"
            fields.fail("partial_rotary_factor", rope.partial_rotary_factor, what)
        found.append(rope)
    return found[0], found[1]


def _parse_rope(
    fields: Fields,
    table: dict[str, Any],
    where: str,
    max_position_embeddings: int,
    theta: float,
    keys: frozenset[str],
    partial: float = 1.0,
    head_dim: int = 0,
) -> RopeSettings:
    """Args: partial: the part of a head that is rotated, where no factor says it."""
    inner = Fields(table, f"{where}: rope settings")
    beside = fields.optional_integer("original_max_position_embeddings", 1, MAX_POSITIONS)
    if "ntk" in keys and inner.raw("type") == "ntk":
        return _ntk(inner, theta, head_dim)
    rope_type = _rope_type(inner)
    if "alpha" in keys and rope_type == "dynamic" and inner.raw("alpha"):
        return _with_larger_base(inner, theta, head_dim)
    values: dict[str, Any] = {"theta": inner.number("rope_theta", MIN_THETA, MAX_THETA, default=theta)}
    original = max_position_embeddings
    if rope_type in ("llama3", "yarn", "longrope"):
        inside = inner.optional_integer("original_max_position_embeddings", 1, MAX_POSITIONS)
        # The value beside the rope settings goes before the one inside, as in transformers; but of Phi MoE.
        original = (inside or beside if "long_mscale" in keys else beside or inside) or max_position_embeddings
    if rope_type == "llama3":
        values |= _llama3(inner)
    elif rope_type == "freq_factors":
        values["freq_factors"] = inner.numbers("freq_factors", 1.0 / MAX_FACTOR, MAX_FACTOR)
    elif rope_type == "longrope":
        values |= _longrope(inner, max_position_embeddings / original)
        if "long_mscale" in keys:
            values |= {key: inner.number(key, 1e-6, 1e6) for key in ("short_mscale", "long_mscale")}
    elif rope_type == "yarn":
        values |= _yarn(inner, max_position_embeddings / original)
    elif rope_type == "proportional":
        values["turning_part"] = inner.number("partial_rotary_factor", 0.0, 1.0, default=1.0)
        values["factor"] = inner.number("factor", 1.0, MAX_FACTOR, default=1.0)
    elif rope_type != "default":
        values["factor"] = inner.number("factor", 1.0, MAX_FACTOR)
    if "partial_rotary_factor" in keys and rope_type != "proportional":
        partial = fields.number("partial_rotary_factor", 0.0, 1.0, default=partial)
        values["partial_rotary_factor"] = inner.number("partial_rotary_factor", 0.0, 1.0, default=partial)
    if "llama_4_scaling_beta" in keys:
        values["query_growth"] = inner.number("llama_4_scaling_beta", 0.0, 1e3, default=0.0)
        inner.raw("max_position_embeddings")  # the one beside is meant
    if "log_factors" in keys and inner.raw("log_factors") is not None:
        values["log_factors"] = inner.numbers("log_factors", -MAX_LOG_FACTOR, MAX_LOG_FACTOR)
    turning: tuple[float, ...] = (1.0,)
    if "qk_rope_head_dim" in keys:  # said twice
        width = fields.integer("qk_rope_head_dim", 2, MAX_POSITIONS)
        turning = (1.0, width / (width + fields.integer("qk_nope_head_dim", 1, MAX_POSITIONS)))
    neutral: dict[str, tuple[Any, ...]] = {
        "partial_rotary_factor": turning,
        "original_max_position_embeddings": (max_position_embeddings,),
        "factor": (1.0,),
        # of yarn, as other programs call what attention_factor is in parts
        "attn_factor": (1.0,),
        "extrapolation_factor": (1.0,),
    }
    inner.refuse_unread(_IGNORABLE, neutral)
    return RopeSettings(rope_type, original_max_position_embeddings=original, **values)


def _with_larger_base(inner: Fields, theta: float, head_dim: int) -> RopeSettings:
    """Source: Hunyuan, whose other numbers of that table say nothing."""
    theta = inner.number("rope_theta", MIN_THETA, MAX_THETA, default=theta)
    alpha = inner.number("alpha", 1.0, MAX_FACTOR)
    if head_dim <= 2:
        inner.fail("alpha", alpha, f"cannot stretch the rotation of heads of {head_dim}")
    said = "factor beta_fast beta_slow mscale mscale_all_dim original_max_position_embeddings max_position_embeddings"
    inner.refuse_unread((*_IGNORABLE, *said.split()), {})
    return RopeSettings(theta=theta * alpha ** (head_dim / (head_dim - 2)))


def _ntk(inner: Fields, theta: float, head_dim: int) -> RopeSettings:
    """A base larger by the factor, and frequencies smaller by its power. Source: the code of gte-multilingual-base."""
    factor = inner.number("factor", 1.0, MAX_FACTOR)
    inner.refuse_unread(_IGNORABLE, {})
    return RopeSettings("linear", theta=theta * factor, factor=factor ** (2 / head_dim))


def _one_table(fields: Fields) -> dict[str, Any]:
    old, new = fields.table("rope_scaling"), fields.table("rope_parameters")
    if old and new and old != new:
        fields.fail("rope_scaling", old, f"contradicts rope_parameters={short(new)}; keep one")
    return old or new or {}


def _rope_type(inner: Fields) -> str:
    old, new = inner.raw("type"), inner.raw("rope_type")
    if old is not None and new is not None and old != new:
        inner.fail("type", old, f"contradicts rope_type={short(new)}; keep one")
    rope_type = old if new is None else new
    if rope_type is None:
        return "default"
    rope_type = _ALIASES.get(rope_type, rope_type) if isinstance(rope_type, str) else rope_type
    if rope_type not in ROPE_TYPES:
        inner.unsupported("rope_type", rope_type, f"supported: {', '.join(ROPE_TYPES)}")
    return str(rope_type)


def _llama3(inner: Fields) -> dict[str, Any]:
    low = inner.number("low_freq_factor", 1e-6, 1e6)
    high = inner.number("high_freq_factor", 1e-6, 1e6)
    if high < low:
        inner.fail("high_freq_factor", high, f"must be at least low_freq_factor={low:g}")
    factor = inner.number("factor", 1.0, MAX_FACTOR)
    return {"factor": factor, "low_freq_factor": low, "high_freq_factor": high}


def _longrope(inner: Fields, implied_factor: float) -> dict[str, Any]:
    low, high = 1.0 / MAX_FACTOR, MAX_FACTOR
    return {
        "factor": inner.number("factor", 1.0, MAX_FACTOR, default=max(implied_factor, 1.0)),
        "attention_factor": inner.optional_number("attention_factor", 1e-6, 1e6),
        "short_factors": inner.numbers("short_factor", low, high),
        "long_factors": inner.numbers("long_factor", low, high),
    }


def _yarn(inner: Fields, implied_factor: float) -> dict[str, Any]:
    fast = inner.number("beta_fast", 1e-6, 1e6, default=32.0)
    slow = inner.number("beta_slow", 1e-6, 1e6, default=1.0)
    if fast < slow:
        inner.fail("beta_fast", fast, f"must be at least beta_slow={slow:g}")
    return {
        "factor": inner.number("factor", 1.0, MAX_FACTOR, default=max(implied_factor, 1.0)),
        "attention_factor": inner.optional_number("attention_factor", 1e-6, 1e6),
        "mscale": inner.optional_number("mscale", 0.0, 1e6),
        "mscale_all_dim": inner.optional_number("mscale_all_dim", 0.0, 1e6),
        "beta_fast": fast,
        "beta_slow": slow,
        "truncate": inner.flag("truncate", True),
    }
