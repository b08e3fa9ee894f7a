"""What a legal program is: the roles and attributes of each call family, and check_program, which holds one to them.

The table is read by compiler/emit.py and by backends; the check runs in tests and wherever a program comes from
outside. The prose is in program.py. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from albireo.dtypes import itemsize
from albireo.graph.op_numbers import (
    ATTENTION_ATTRS,
    GROUPS,
    RECURRENT,
)
from albireo.graph.program import Buffer, Call, is_gated

#: Step array -> the rows it has and, where it names rows, those it picks from. out_rows is logit_rows, then top_rows;
#: logit_pos and top_pos are where each of them is in it. out_adapter_slots are the adapter_slots of out_rows.
STEP_ARRAYS: dict[str, tuple[str, str | None]] = {
    "token_ids": ("T", None),
    "positions": ("T", None),
    "token_types": ("T", None),
    "logit_rows": ("R", "T"),
    "top_rows": ("G", "T"),
    "out_rows": ("S", "T"),
    "logit_pos": ("R", "S"),
    "top_pos": ("G", "S"),
    "adapter_slots": ("T", None),
    "out_adapter_slots": ("S", None),
}
#: Attributes of what has adapters; all but the first are of a part that a rank has, or of a leaf.
_OF_MODULES = ("modules", "module_rows", "module_inputs")
SPLITS = ("panels", "rows", "heads", "one")
#: What a linear does to its outputs, in the native core's order; see program.is_gated.
ACTS = ("none", "silu_mul", "gelu_tanh_mul", "gelu", "gelu_tanh", "relu", "clamped_swiglu")
#: Those of linears that have a gate; and none, for families that know no others.
GATED_ACTS = tuple(act for act in ACTS if act == "none" or is_gated(act))
#: What an elementwise call does to each element, in the native core's order.
KINDS = (
    *("cast", "silu", "gelu", "gelu_tanh", "relu", "scale", "softcap", "add", "mul", "clamped_swiglu", "sigmoid"),
    "scale_by",
    "relu2",
    "clamp",
    "xielu",
    "gain",
    "clip",
    "clip_above",
    "shift",
)
#: Those that backends have who are able to (pipeline.ABLE_PASSES): silu(min(x, most)) * y kept between -most and most.
ABLE_KINDS = ("clipped_silu_mul",)
#: Kinds that read a number of each column.
KINDS_OF_COLUMNS = ("gain", "shift")
#: Attributes of kinds, which they are called after.
NUMBERS_OF_KINDS = ("scale", "softcap", "clip", "clip_above", *ABLE_KINDS)
#: Those that read two operands.
KINDS_OF_TWO = ("add", "mul", "clamped_swiglu", *ABLE_KINDS)
#: How many numbers of a weight those read that read one.
KIND_NUMBERS = {"scale_by": 1, "clamp": 2, "xielu": 2}
#: What a row_map call does to each row, in the native core's order; the first reads two operands.
ROW_KINDS = ("match_length", "cut")
#: What an output_gate does to a gate.
GATE_KINDS = ("silu", "sigmoid")
ALIGNMENT = 64
#: Values that the columns of a linear are, at most.
MOST_PARTS = 8

#: (start, stop, is_write) ranges one call touches.
Accesses = list[tuple[int, int, bool]]


@dataclass(frozen=True, slots=True)
class Family:
    """Argument roles and attribute names of one call family.

    Fields:
        weight: the role whose packing the kernel chooses. writes_kv: it writes its layer's KV cache.
        optional_attrs: absent where they say nothing. fewest: outputs that a call has at least; None: all.
    """

    required: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: tuple[str, ...]
    optional: tuple[str, ...] = ()
    weight: str | None = None
    optional_attrs: tuple[str, ...] = ()
    writes_kv: bool = False
    fewest: int | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.required + self.optional

    @property
    def all_attrs(self) -> tuple[str, ...]:
        return self.attrs + self.optional_attrs


FAMILIES: dict[str, Family] = {
    "embed": Family(("ids", "table"), ("out",), ("width",), weight="table", optional_attrs=("scale", "never_given")),
    "given": Family((), ("out",), ("width", "place")),
    "add_given": Family(("x",), ("out",), ("place",)),
    "add_given_norm": Family(("x", "gain"), ("out", "scaled", "squares"), ("place",)),
    "norm": Family(
        ("x",),
        ("out",),
        ("eps",),
        optional=("weight", "bias", "rows", "residual"),
        weight="weight",
        optional_attrs=("centered",),
    ),
    "two_norms": Family(
        ("x", "residual"), ("out", "normed"), ("eps", "next_eps"), optional=("weight", "by", "next_weight")
    ),
    "gather": Family(("x", "rows"), ("out",), ()),
    "linear": Family(
        ("x", "weight"),
        ("out",),
        ("n", "k", "act"),
        optional=("bias", "residual", "squares", "low"),
        weight="weight",
        optional_attrs=("chunks", "norm_eps", *_OF_MODULES),
    ),
    "linear_norm": Family(
        ("x", "weight", "gain"),
        ("out", "scaled", "squares"),
        ("n", "k", "act"),
        optional=("residual", "bias", "row_squares", "low"),
        weight="weight",
        optional_attrs=("chunks", "norm_eps", *_OF_MODULES),
    ),
    "linear_parts": Family(
        ("x", "weight"),
        ("out", *(f"out{i}" for i in range(2, MOST_PARTS + 1))),
        ("n", "k", "act"),
        optional=("squares", "low"),
        weight="weight",
        optional_attrs=("norm_eps", *_OF_MODULES),
        fewest=2,
    ),
    "all_reduce": Family(("x",), ("out",), ("n", "ranks"), optional=("bias", "residual")),
    "all_reduce_norm": Family(
        ("x", "residual", "gain"), ("out", "scaled", "squares"), ("n", "ranks"), optional=("bias",)
    ),
    "qkv_rope_kv": Family(
        ("x", "weight", "rope"),
        ("q",),
        ("layer", "num_heads", "num_kv_heads", "head_dim", "eps"),
        optional=("bias", "q_norm", "k_norm", "v_weight", "v_bias", "squares", "low"),
        weight="weight",
        optional_attrs=("norm_eps", "norms_v", *_OF_MODULES),
        writes_kv=True,
    ),
    "choose_keys": Family(
        ("q",),
        ("ids",),
        ("layer", "num_heads", "head_dim", "count"),
        optional=("weights",),
        optional_attrs=("block", "nearest", "every", "as_positions"),
    ),
    "attention": Family(
        ("q",),
        ("out",),
        ("layer", "num_heads", "num_kv_heads", "head_dim", "scale", "window", "softcap"),
        optional=("rows", "sinks", "distances", "chosen", "from_rows", "from_keys"),
        optional_attrs=ATTENTION_ATTRS,
    ),
    "head_top": Family(("x", "weight"), ("ids", "values"), ("n", "k"), weight="weight", optional_attrs=("softcap",)),
    "route": Family(
        ("x",),
        ("ids", "weights"),
        ("top_k", "renormalize"),
        optional=("bias", "gain", "chosen", "gate"),
        optional_attrs=("scores", *GROUPS, "factor", "eps", "margin", "by_logits", "shared"),
    ),
    "expert_linear": Family(
        ("x", "ids", "weight"),
        ("out",),
        ("n", "k", "act", "num_experts", "top_k"),
        optional=("bias", "squares"),
        weight="weight",
        optional_attrs=("norm_eps",),
    ),
    "combine": Family(("x", "weights"), ("out",), (), optional=("residual", "ids"), optional_attrs=("num_experts",)),
    "combine_norm": Family(("x", "weights", "residual", "gain"), ("out", "scaled", "squares"), ()),
    "gate_rows": Family(("x", "gate"), ("out",), (), optional=("residual",), optional_attrs=("kind",)),
    "head_linear": Family(("x", "weight"), ("out",), ("n", "k", "num_heads"), weight="weight"),
    "join_heads": Family(("x", "y"), ("out",), ("num_heads",)),
    "head_rows": Family(
        ("x", "weight", "tail"),
        ("out",),
        ("n", "k", "num_heads"),
        optional=("rope",),
        weight="weight",
        optional_attrs=("side_by_side",),
    ),
    "join_sums": Family(("x", "y", "sinks"), ("out",), ("num_heads",)),
    "pool_rows": Family(("x",), ("out",), ("state", "every", "series"), optional=("gates", "places")),
    "balance": Family(("x",), ("out",), ("rounds", "eps")),
    "add_parts": Family(("x", "y"), ("out",), ("num_parts", "first", "plus"), optional=("coefs",)),
    "read_streams": Family(
        ("x", "y", *(f"{name}_{part}" for name in ("read", "written", "mixed") for part in ("scale", "bias"))),
        ("out", "coefs", "matrix"),
        ("num_parts", "eps", "plus", "rounds", "least"),
        optional=("gain",),
        optional_attrs=("norm_eps",),
    ),
    "mix_streams": Family(("x", "y", "coefs"), ("out",), ("num_parts", "plus", "factor"), optional=("matrix",)),
    "row_map": Family(("x",), ("out",), ("kind", "number"), optional=("y",)),
    "output_gate": Family(
        ("x", "gate"),
        ("out",),
        ("kind",),
        optional=("weight",),
        optional_attrs=("eps", "num_heads", "is_behind"),
        weight="weight",
    ),
    "elementwise": Family(
        ("x",), ("out",), ("kind",), optional=("y", "weight"), weight="weight", optional_attrs=NUMBERS_OF_KINDS
    ),
    "head_norm": Family(
        ("x",), ("out",), ("eps", "num_heads"), optional=("weight",), weight="weight", optional_attrs=("centered",)
    ),
    "rope": Family(
        ("x", "rope"),
        ("out",),
        ("num_heads", "head_dim"),
        optional=("rows", "slope", "start", "weight"),
        optional_attrs=("side_by_side", "ahead", "eps"),
    ),
    "kv_write": Family(
        ("k",),
        (),
        ("layer", "num_kv_heads", "head_dim"),
        optional=("v", "tail", "weight", "bias", "rope"),
        optional_attrs=("every", "eps", "centered", "side_by_side"),
        writes_kv=True,
    ),
    "causal_conv": Family(
        ("x", "weight"),
        ("out",),
        ("state",),
        optional=("bias",),
        weight="weight",
        optional_attrs=("activation", "gated"),
    ),
    "depthwise_conv": Family(
        ("x", "weight"), ("out",), (), optional=("bias",), weight="weight", optional_attrs=("activation",)
    ),
    "gated_delta_rule": Family(
        ("x", "gates", "a_log", "dt_bias"),
        ("out",),
        ("state", "num_k_heads", "num_v_heads", "k_dim", "v_dim"),
        optional=("dt",),
        optional_attrs=("learns_twice", "most_decay"),
    ),
    "selective_state": Family(
        ("x",),
        ("out",),
        ("state", "num_k_heads", "num_v_heads", "k_dim", "v_dim"),
        optional=("dt", "a_log", "dt_bias", "skip"),
        optional_attrs=("dt_least", "dt_most", "slopes"),
    ),
    "selective_scan": Family(("x", "dt", "bc", "a_log", "dt_bias", "skip"), ("out",), ("state",)),
    "slice": Family(("x",), ("out",), ("start",)),
    "top": Family(("x",), ("ids", "values"), ("n",)),
    "adapter": Family(("x",), ("out",), ("modules", "max_rank"), optional_attrs=("chunks", *_OF_MODULES[1:])),
}

#: Families where ranks meet.
MEETINGS = ("all_reduce", "all_reduce_norm")
#: Families of backends that are able to (pipeline.ABLE_PASSES, pipeline.adapter_passes); every backend has the others.
OF_STREAMS = ("add_parts", "row_map", "balance", "join_sums")
#: Several of these in one, which GPUs have.
JOINED_STREAMS = ("read_streams", "mix_streams")
ABLE_FAMILIES = (
    "linear_norm",
    "linear_parts",
    "all_reduce_norm",
    "combine_norm",
    "add_given_norm",
    "two_norms",
    "head_rows",
    "output_gate",
    "adapter",
    *RECURRENT,
    *OF_STREAMS,
    *JOINED_STREAMS,
)
#: Families that every backend has kernels for.
COMMON_FAMILIES = tuple(name for name in FAMILIES if name not in ABLE_FAMILIES)


def buffer_bytes(buffer: Buffer, maxima: Mapping[str, int]) -> int:
    """Bytes of a buffer at the largest rows."""
    rows = maxima[buffer.rows] if isinstance(buffer.rows, str) else buffer.rows
    numbers = (rows - 1) * buffer.stride + buffer.cols if buffer.within else rows * buffer.stride
    return numbers * itemsize(buffer.dtype)


def accesses(call: Call, buffers: Mapping[str, Buffer], maxima: Mapping[str, int]) -> Accesses:
    """Arena ranges a call touches; KV layers count as ranges below zero."""
    family = FAMILIES[call.family]
    ranges = []
    for role, name in call.args.items():
        buffer = buffers.get(name)
        if buffer is not None:
            stop = buffer.offset + buffer_bytes(buffer, maxima)
            ranges.append((buffer.offset, stop, role in family.outputs))
    if "layer" in call.attrs:
        layer = -1 - call.attrs["layer"]
        ranges.append((layer, layer + 1, family.writes_kv))
    return ranges


def conflict(a: Accesses, b: Accesses) -> bool:
    """Whether two calls may not run at once: they share bytes and one of them writes."""
    return any(
        a_start < b_stop and b_start < a_stop and (a_writes or b_writes)
        for a_start, a_stop, a_writes in a
        for b_start, b_stop, b_writes in b
    )
