"""Arguments of native calls: of a program's call, what the native core asks for by name.

Made for model.py, one a program. Does not know steps. A call's numbers have few names in the native core, so that they
mean what its family says: csrc/include/albireo/kernel.h, and the contracts in csrc/kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cpu.adapters import CpuAdapters
from albireo.backends.cpu.kv_memory import KVMemory
from albireo.dtypes import itemsize, natural_stride
from albireo.errors import InvariantError
from albireo.graph.attention_op import lists_of
from albireo.graph.distance_columns import distance_columns
from albireo.graph.op_numbers import CONV_ACTIVATIONS, GATES, GROUPS, SCORES
from albireo.graph.program import Buffer, Call, PackedConstant, Program
from albireo.graph.program_spec import ACTS, KINDS, ROW_KINDS, STEP_ARRAYS

#: What a role is to the native core: what it reads rows of, or what it writes.
_SIDES = {
    ("", "x"): "x",
    ("", "out"): "out",
    ("qkv_rope_kv", "q"): "out",
    ("attention", "q"): "x",
    ("choose_keys", "q"): "x",
    ("kv_write", "k"): "x",
}
#: Roles whose name in the native core differs.
_NATIVE_ROLES = {
    ("embed", "table"): "weight",
    ("qkv_rope_kv", "q"): "out",
    ("attention", "q"): "x",
    ("attention", "chosen"): "ids",
    ("choose_keys", "q"): "x",
    ("choose_keys", "weights"): "gates",
    ("kv_write", "k"): "x",
    ("kv_write", "v"): "y",
    ("gate_rows", "gate"): "y",
    ("route", "gain"): "weight",
    ("route", "chosen"): "gates",
    ("pool_rows", "gates"): "y",
    ("pool_rows", "places"): "a_log",
    ("rope", "slope"): "weight",
    ("rope", "start"): "bias",
    ("add_parts", "coefs"): "gates",
    ("gated_delta_rule", "dt"): "y",
    ("selective_scan", "dt"): "y",
    ("selective_scan", "bc"): "gates",
}
#: Of families whose kinds are not those of elementwise.
_KINDS_OF = {"row_map": ROW_KINDS, "gate_rows": GATES}
#: Roles of few numbers a row, far too few for a gap, which kernels take to have none.
_GAPLESS = {
    "route": ("ids", "weights", "chosen"),
    "expert_linear": ("ids",),
    "combine": ("weights", "ids"),
    "gate_rows": ("gate",),
    "add_parts": ("coefs",),
    "gated_delta_rule": ("gates",),
    "selective_state": ("dt",),
    "selective_scan": ("bc",),
    "choose_keys": ("weights",),
}
#: What an array of rows picks from, as the native core numbers it; it knows the arrays themselves.
_GATHERS = {"T": 1, "S": 2}
#: What says which row of a table an embedding is, as the native core numbers it.
_IDS = ("token_ids", "positions", "token_types")
#: Of tokens, whatever rows the step gives.
_OF_TOKENS_ALONE = 3
#: Attributes that the native core has by the same names, as numbers, and as flags.
_NUMBERS = (
    *("n", "k", "chunks", "eps", "num_heads", "window", "scale", "softcap", "num_experts", "renormalize", "margin"),
    *("value_dim", "result_dim", "first_key", "num_keys"),
)
_FLAGS = ("centered", "both_ways", "in_chunks", "sums", "side_by_side", "gated")


@dataclass(frozen=True, slots=True)
class _Call:
    """A call among the buffers and constants of its program."""

    program: Program
    call: Call

    def buffer(self, role: str) -> Buffer:
        return self.program.buffers[self.call.args[role]]

    def constant(self, role: str) -> PackedConstant:
        return self.program.constants[self.call.args[role]]

    def cols(self, role: str) -> int:
        return self.buffer(role).cols

    def stride(self, role: str) -> int:
        return self.buffer(role).stride


Args = dict[str, object]


def _gather(c: _Call) -> Args:
    x = c.buffer("x")
    return {"k": natural_stride(x.dtype, x.cols)}


def _head_norm(c: _Call) -> Args:
    heads = c.call.attrs["num_heads"]
    return {"k": c.cols("x") // heads, "n": c.constant("weight").cols if "weight" in c.call.args else 0}


def _pool_rows(c: _Call) -> Args:
    args: Args = {"num_heads": 1, "num_k_heads": c.call.attrs["series"], "k": c.call.attrs["every"]}
    args |= {"y_stride": c.stride("gates")} if "gates" in c.call.args else {}
    return args | {"v_dim": c.cols("out")}


def _convolution(c: _Call) -> Args:
    weight, attrs = c.constant("weight"), c.call.attrs
    act = CONV_ACTIVATIONS.index(attrs.get("activation", CONV_ACTIVATIONS[0]))
    return {"n": weight.rows, "k": weight.cols, "act": act}


def _recurrence(c: _Call) -> Args:
    attrs = c.call.attrs
    args: Args = {key: attrs[key] for key in ("num_k_heads", "k_dim", "v_dim", "dt_least", "dt_most") if key in attrs}
    args |= {"num_heads": attrs["num_v_heads"], "scale": attrs.get("most_decay", 0.0)}
    args |= {"act": int(attrs.get("learns_twice", False))}
    is_told_apart = c.call.family == "gated_delta_rule" and "dt" in c.call.args
    return args | ({"y_stride": c.stride("dt")} if is_told_apart else {})


def _selective_scan(c: _Call) -> Args:
    speeds = c.constant("a_log")
    return {"num_heads": 1, "k_dim": speeds.cols, "v_dim": speeds.rows, "y_stride": c.stride("dt")}


def _embed(c: _Call) -> Args:
    ids, attrs = c.call.args["ids"], c.call.attrs
    is_alone = attrs.get("never_given", False) and ids == _IDS[0]
    return {"k": attrs["width"], "ids_of": _OF_TOKENS_ALONE if is_alone else _IDS.index(ids)}


def _route(c: _Call) -> Args:
    attrs = c.call.attrs
    args: Args = {"k": c.cols("x"), "sigmoid": SCORES.index(attrs.get("scores", SCORES[0]))}
    args |= {"act": int(attrs.get("by_logits", False)), "scale": attrs.get("factor", 0.0)}
    return args | {key: attrs[key] for key in GROUPS if key in attrs}


def _join_heads(c: _Call) -> Args:
    heads = c.call.attrs["num_heads"]
    return {"k": c.cols("x") // heads, "n": c.cols("y") // heads, "y_stride": c.stride("y")}


def _add_parts(c: _Call) -> Args:
    attrs = c.call.attrs
    width = c.cols("x") // attrs["num_parts"]
    args: Args = {"k": width, "num_heads": attrs["num_parts"], "num_k_heads": c.cols("y") // width}
    return args | {"y_stride": c.stride("y"), "first_key": attrs["first"], "scale": attrs["plus"]}


def _row_map(c: _Call) -> Args:
    strides = {"y_stride": c.stride("y")} if "y" in c.call.args else {}
    return {"k": c.cols("x"), "scale": c.call.attrs["number"]} | strides


def _expert_linear(c: _Call) -> Args:
    return {"of_pairs": int(c.buffer("x").rows == "P"), "most_pairs": c.program.maxima["P"]}


def _choose_keys(c: _Call) -> Args:
    attrs = c.call.attrs
    args: Args = {"n": attrs["count"], "window": attrs.get("block", 0), "first_key": attrs.get("nearest", 0)}
    args |= {"k": attrs["every"]} if attrs.get("as_positions") else {}
    return args | {"y_stride": c.stride("ids")}


def _attention(c: _Call) -> Args:
    if "chosen" not in c.call.args:
        return {}
    lists = lists_of(c.call.attrs)
    args: Args = {"n": c.cols("chosen") // lists, "y_stride": c.stride("chosen")}
    return args | ({"num_k_heads": lists} if c.call.attrs.get("own_lists") else {})


def _qkv_rope_kv(c: _Call) -> Args:
    args: Args = {"k": c.cols("x")}
    if "v_weight" in c.call.args:
        args["v_dtype"] = c.constant("v_weight").packing.partition(".")[2]
    return args


#: What only calls of a family have.
_OF_FAMILY: dict[str, Callable[[_Call], Args]] = {
    "norm": lambda c: {"k": c.cols("x")},
    "elementwise": lambda c: {"k": c.cols("x")},
    "gather": _gather,
    "head_norm": _head_norm,
    "rope": lambda c: {"k": c.call.attrs["head_dim"], "first_key": c.call.attrs.get("ahead", 0)},
    "pool_rows": _pool_rows,
    "balance": lambda c: {"k": math.isqrt(c.cols("x")), "num_heads": c.call.attrs["rounds"]},
    "join_sums": lambda c: {"k": c.cols("out") // c.call.attrs["num_heads"], "y_stride": c.stride("y")},
    "causal_conv": _convolution,
    "depthwise_conv": _convolution,
    "gated_delta_rule": _recurrence,
    "selective_state": _recurrence,
    "selective_scan": _selective_scan,
    "slice": lambda c: {"k": c.cols("out")},
    "given": lambda c: {"k": c.call.attrs["width"], "n": c.call.attrs["place"]},
    "add_given": lambda c: {"k": c.cols("x"), "n": c.call.attrs["place"]},
    "embed": _embed,
    "route": _route,
    "join_heads": _join_heads,
    "add_parts": _add_parts,
    "row_map": _row_map,
    "combine": lambda c: {"n": c.cols("out")},
    "gate_rows": lambda c: {"n": c.cols("out"), "k": c.cols("out") // c.cols("gate")},
    "expert_linear": _expert_linear,
    "choose_keys": _choose_keys,
    "attention": _attention,
    "qkv_rope_kv": _qkv_rope_kv,
}


@dataclass(slots=True)
class Arguments:
    """Of the calls of a program that is bound to addresses. What it makes for them lives as long as it does.

    Fields: arena: where it begins. constants: where each is. states: where the first of num_state_slots slots is.
    max_positions: of the longest sequence. adapters: slots of the linears that have any.
    """

    program: Program
    arena: int
    constants: Mapping[str, int]
    kv: KVMemory
    states: int
    num_state_slots: int
    max_positions: int
    adapters: CpuAdapters | None
    _slopes: dict[tuple[float, ...], NDArray[np.float32]] = field(default_factory=dict)
    _columns: dict[tuple[int, int], NDArray[np.int32]] = field(default_factory=dict)

    def of(self, call: Call) -> Args:
        """Addresses by role, element types, numbers. Raises: InvariantError for one that no kernel can compute."""
        c = _Call(self.program, call)
        args: Args = {"rows": call.rows, "barrier": int(call.barrier), "top_k": self.program.top_k}
        args |= self._addresses(call) | self._rows(c) | _weights(c)
        args |= _OF_FAMILY[call.family](c) if call.family in _OF_FAMILY else {}
        args |= self._elsewhere(c) | _named(call)
        return args | self._sequences(c)

    def _address(self, name: str) -> int:
        if name in self.program.buffers:
            return self.arena + self.program.buffers[name].offset
        return self.constants[name]

    def _addresses(self, call: Call) -> Args:
        return {
            _NATIVE_ROLES.get((call.family, role), role): self._address(name)
            for role, name in call.args.items()
            # the best logits are not of the arena, see native TopLists
            if not (call.family in ("head_top", "top") and role in ("ids", "values")) and name not in STEP_ARRAYS
        }

    def _rows(self, c: _Call) -> Args:
        """Of what is read and written row by row."""
        call, args = c.call, Args()
        for role, name in call.args.items():
            side = _SIDES.get((call.family, role), _SIDES.get(("", role)))
            if side is not None and name in self.program.buffers:
                args |= {f"{side}_dtype": c.buffer(role).dtype, f"{side}_stride": c.stride(role)}
        for role in call.args.keys() & set(_GAPLESS.get(call.family, ())):
            if c.stride(role) != c.cols(role):
                raise InvariantError(f"{call.origin}: {role} has gaps between its rows; the kernel reads it without")
        is_picked = call.family == "attention" and c.buffer("q").rows == call.rows
        if "rows" in call.args and not is_picked:
            _, source = STEP_ARRAYS[call.args["rows"]]
            args["gather"] = _GATHERS[source or ""]
        return args

    def _elsewhere(self, c: _Call) -> Args:
        """What lies beside the arena's rows, or in the midst of them."""
        call, args = c.call, Args()
        if call.family == "slice":
            x = c.buffer("x")
            args["x"] = self._address(x.name) + call.attrs["start"] * itemsize(x.dtype)
        if call.family == "choose_keys":
            args["num_keys"] = self.max_positions
        if "modules" in call.attrs:
            if self.adapters is None:
                raise InvariantError(f"{call.origin}: a program with adapters is bound with their slots")
            args["adapters"] = self.adapters.address(call)
            if "low" in call.args:
                args["low_stride"] = c.stride("low")
        if "slopes" in call.attrs:
            of_heads = call.attrs["slopes"]
            args["slopes"] = self._slopes.setdefault(of_heads, np.array(of_heads, np.float32)).ctypes.data
        return args

    def _sequences(self, c: _Call) -> Args:
        """Of what sequences keep, and of how far rows of one are apart."""
        attrs, args = c.call.attrs, Args()
        if "state" in attrs:
            states = self.program.states
            args["state"] = self.states + sum(states.sizes[: attrs["state"]])
            # how far it is to the next slot's, in floats
            args |= {"state_size": states.slot_bytes // itemsize("float32"), "state_slots": self.num_state_slots}
        if "reach" in attrs:
            of_head = c.cols("from_rows") // attrs["num_heads"]
            shape = (of_head, attrs["reach"])
            columns = self._columns.setdefault(shape, np.array(distance_columns(*shape), np.int32))
            args |= {"columns": columns.ctypes.data, "num_columns": of_head, "reach": attrs["reach"]}
            for role, stride in (("from_rows", "row_stride"), ("from_keys", "key_stride")):
                if role in c.call.args:
                    args[stride] = c.stride(role)
        if "distances" in c.call.args:
            args["num_distances"] = c.constant("distances").rows
        if "layer" in attrs:
            layer, kv = attrs["layer"], self.program.kv
            args |= {"kv": self.kv.address(layer), "kv_group": kv.place(layer)[0], "kv_dtype": kv.dtype}
            args |= {"num_kv_heads": attrs.get("num_kv_heads", 1), "head_dim": attrs["head_dim"]}
            args |= {"block_size": kv.block_size, "has_values": kv.keeps_values(layer)}
            args |= {"every": attrs.get("every", 1), "kv_stride": kv.stride(layer)}
        return args


def _weights(c: _Call) -> Args:
    role = next((role for role in ("weight", "table") if role in c.call.args), None)
    if role is None:
        return {}
    kind, _, dtype = c.constant(role).packing.partition(".")
    return {"w_dtype": dtype, "packed": int(kind == "p64")}


def _named(call: Call) -> Args:
    """Attributes that are numbers of the native core, or say which."""
    attrs = call.attrs
    args: Args = {key: attrs[key] for key in _NUMBERS if key in attrs}
    args |= {key: int(attrs[key]) for key in _FLAGS if key in attrs}
    for key in attrs.keys() & {"clip", "clip_above"}:
        args["scale"] = attrs[key]
    if attrs.get("causal", False):
        args["both_ways"] = -1
    if "act" in attrs:
        args["act"] = ACTS.index(attrs["act"])
    if "kind" in attrs:
        args["act"] = _KINDS_OF.get(call.family, KINDS).index(attrs["kind"])
    return args
