"""Runs an emitted Program call by call with the reference's arithmetic, on real bytes of one arena.

What interpret() does for graphs: it shows that roles, row orders, offsets and aliasing say what the graph said. Memory
that was never written holds NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.backends.reference.call import Array, OpCall
from albireo.backends.reference.interpret import OPS
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import bfloat16_bits, from_bfloat16_bits, round_to
from albireo.backends.step_inputs import StepInputs
from albireo.backends.vectors import altered
from albireo.graph.node import ConstantDef
from albireo.graph.program import GATE_UP_INTERLEAVE, Buffer, Call, Program, is_gated
from albireo.graph.program_spec import KIND_NUMBERS, KINDS_OF_TWO

_NUMPY = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "int32": np.int32}


class ProgramRunner:
    """One program, its weights and its arena."""

    def __init__(self, program: Program, weights: Mapping[str, Array], kv: ReferenceKV) -> None:
        self.program, self.kv = program, kv
        self.arena = np.empty(program.arena_bytes, np.uint8)
        self.constants = {
            name: round_to(_rows(c.definition, weights), c.packing.partition(".")[2])
            for name, c in program.constants.items()
            if c.definition is not None
        }

    def run(self, step: StepInputs) -> dict[str, Array]:
        self.arena[:] = 0xFF
        for call in self.program.calls:
            if self.program.sizes(step.sizes)[call.rows]:
                results = getattr(self, call.family)(call, step)
                for role, result in results.items():
                    self._write(self.program.buffers[call.args[role]], result)
        return {name: self._read(b, step) for name, b in self.program.outputs.items()}

    def embed(self, call: Call, step: StepInputs) -> dict[str, Array]:
        out = _op("embed", step, ids=getattr(step, call.args["ids"]), table=self._arg(call, "table", step))
        return {"out": _op("scale", step, {"factor": call.attrs["scale"]}, x=out) if "scale" in call.attrs else out}

    def norm(self, call: Call, step: StepInputs) -> dict[str, Array]:
        x = self._arg(call, "x", step)
        if "rows" in call.args:
            x = x[getattr(step, call.args["rows"])]
        vectors = {r: self._arg(call, r, step).reshape(-1) for r in ("weight", "bias") if r in call.args}
        out = _op("rms_norm", step, {**call.attrs, "num_heads": 1}, x=x, **vectors)
        return {"out": _op("add", step, x=self._arg(call, "residual", step), y=out) if "residual" in call.args else out}

    def gather(self, call: Call, step: StepInputs) -> dict[str, Array]:
        return {"out": self._arg(call, "x", step)[getattr(step, call.args["rows"])]}

    def linear(self, call: Call, step: StepInputs) -> dict[str, Array]:
        return {"out": self._with_residual(call, step, _gated(call, step, self._matmul(call, step)))}

    def route(self, call: Call, step: StepInputs) -> dict[str, Array]:
        roles = {"x": self._arg(call, "x", step)}
        if "bias" in call.args:
            roles["bias"] = self._arg(call, "bias", step).reshape(-1)
        ids, weights = OPS["route"](OpCall(roles, call.attrs, step))
        return {"ids": ids, "weights": weights}

    def expert_linear(self, call: Call, step: StepInputs) -> dict[str, Array]:
        roles = {role: self._arg(call, role, step) for role in ("x", "ids", "weight", "bias") if role in call.args}
        if "bias" in roles:
            roles["bias"] = roles["bias"].reshape(-1)
        y = _op("expert_linear", step, call.attrs, **roles)
        return {"out": _gated(call, step, y)[:, : call.attrs["n"]]}

    def head_linear(self, call: Call, step: StepInputs) -> dict[str, Array]:
        roles = {role: self._arg(call, role, step) for role in ("x", "weight")}
        y = _op("head_linear", step, {"num_heads": call.attrs["num_heads"]}, **roles)
        heads, n = call.attrs["num_heads"], call.attrs["n"]
        return {"out": y.reshape(len(y), heads, y.shape[1] // heads)[:, :, :n].reshape(len(y), heads * n)}

    def join_heads(self, call: Call, step: StepInputs) -> dict[str, Array]:
        return {"out": _op("join_heads", step, call.attrs, x=self._arg(call, "x", step), y=self._arg(call, "y", step))}

    def combine(self, call: Call, step: StepInputs) -> dict[str, Array]:
        y = _op("combine", step, x=self._arg(call, "x", step), weights=self._arg(call, "weights", step))
        return {"out": self._with_residual(call, step, y)}

    def gate_rows(self, call: Call, step: StepInputs) -> dict[str, Array]:
        y = _op("gate_rows", step, call.attrs, x=self._arg(call, "x", step), gate=self._arg(call, "gate", step))
        return {"out": self._with_residual(call, step, y)}

    def qkv_rope_kv(self, call: Call, step: StepInputs) -> dict[str, Array]:
        a = call.attrs
        heads = {"q": a["num_heads"], "k": a["num_kv_heads"], "v": a["num_kv_heads"]}
        y = self._matmul(call, step)
        cuts = np.cumsum([count * a["head_dim"] for count in heads.values()])[:-1]
        q, k, v = np.split(y, cuts, axis=1)
        parts = {"q": q, "k": k, "v": v}
        for role in ("q", "k"):
            if f"{role}_norm" in call.args:
                weight = self._arg(call, f"{role}_norm", step).reshape(-1)
                attrs = {"eps": a["eps"], "num_heads": heads[role]}
                parts[role] = _op("rms_norm", step, attrs, x=parts[role], weight=weight)
            rope = self.program.constants[call.args["rope"]].rope
            attrs = {"num_heads": heads[role], "head_dim": a["head_dim"], "rope": rope}
            parts[role] = _op("rope", step, attrs, x=parts[role], positions=step.positions)
        attrs = {"layer": a["layer"], "num_kv_heads": a["num_kv_heads"], "head_dim": a["head_dim"]}
        _op("kv_write", step, attrs, k=parts["k"], v=parts["v"], kv=self.kv)
        return {"q": parts["q"]}

    def attention(self, call: Call, step: StepInputs) -> dict[str, Array]:
        attrs = call.attrs | {name: call.attrs[name] or None for name in ("window", "softcap")}
        sinks = {"sinks": self._arg(call, "sinks", step).reshape(-1)} if "sinks" in call.args else {}
        return {"out": _op("attention", step, attrs, q=self._arg(call, "q", step), kv=self.kv, **sinks)}

    def head_top(self, call: Call, step: StepInputs) -> dict[str, Array]:
        logits = self._matmul(call, step)
        if "softcap" in call.attrs:
            logits = _softcap(logits, call.attrs["softcap"], step)
        ids, values = OPS["top_logits"](OpCall({"logits": logits}, {}, step))
        return {"ids": ids, "values": values}

    def elementwise(self, call: Call, step: StepInputs) -> dict[str, Array]:
        kind, x = call.attrs["kind"], self._arg(call, "x", step)
        if kind == "cast":
            return {"out": x}  # rounded where it is written
        if kind == "scale":
            return {"out": _op("scale", step, {"factor": call.attrs["scale"]}, x=x)}
        if kind == "softcap":
            return {"out": _softcap(x, call.attrs["softcap"], step)}
        if kind in KIND_NUMBERS or kind == "gain":
            return {"out": _op(kind, step, x=x, weight=self._arg(call, "weight", step).reshape(-1))}
        if kind in KINDS_OF_TWO:
            return {"out": _op(kind, step, x=x, y=self._arg(call, "y", step))}
        return {"out": _op("unary", step, {"kind": kind}, x=x)}

    def add_parts(self, call: Call, step: StepInputs) -> dict[str, Array]:
        roles = {role: self._arg(call, role, step) for role in ("x", "y", "coefs") if role in call.args}
        return {"out": _op("add_parts", step, call.attrs, **roles)}

    def row_map(self, call: Call, step: StepInputs) -> dict[str, Array]:
        roles = {role: self._arg(call, role, step) for role in ("x", "y") if role in call.args}
        kind, number = call.attrs["kind"], call.attrs["number"]
        return {"out": _op(kind, step, {"least" if kind == "match_length" else "deviations": number}, **roles)}

    def head_norm(self, call: Call, step: StepInputs) -> dict[str, Array]:
        vectors = {r: self._arg(call, r, step).reshape(-1) for r in ("weight",) if r in call.args}
        return {"out": _op("rms_norm", step, call.attrs, x=self._arg(call, "x", step), **vectors)}

    def rope(self, call: Call, step: StepInputs) -> dict[str, Array]:
        attrs = call.attrs | {"rope": self.program.constants[call.args["rope"]].rope}
        return {"out": _op("rope", step, attrs, x=self._arg(call, "x", step), positions=step.positions)}

    def kv_write(self, call: Call, step: StepInputs) -> dict[str, Array]:
        given = {role: self._arg(call, role, step) for role in ("k", "v") if role in call.args}
        _op("kv_write", step, call.attrs, **given, kv=self.kv)
        return {}

    def slice(self, call: Call, step: StepInputs) -> dict[str, Array]:
        start, width = call.attrs["start"], self.program.buffers[call.args["out"]].cols
        return {"out": self._arg(call, "x", step)[:, start : start + width]}

    def top(self, call: Call, step: StepInputs) -> dict[str, Array]:
        ids, values = OPS["top_logits"](OpCall({"logits": self._arg(call, "x", step)}, {}, step))
        return {"ids": ids, "values": values}

    def _with_residual(self, call: Call, step: StepInputs, y: Array) -> Array:
        return _op("add", step, x=self._arg(call, "residual", step), y=y) if "residual" in call.args else y

    def _matmul(self, call: Call, step: StepInputs) -> Array:
        roles = {"x": self._arg(call, "x", step), "weight": self._arg(call, "weight", step)}
        if "bias" in call.args:
            roles["bias"] = self._arg(call, "bias", step).reshape(-1)
        return _op("linear", step, **roles)

    def _arg(self, call: Call, role: str, step: StepInputs) -> Array:
        name = call.args[role]
        return self._read(name, step) if name in self.program.buffers else self.constants[name]

    def _read(self, name: str, step: StepInputs) -> Array:
        buffer = self.program.buffers[name]
        rows = self.program.sizes(step.sizes)[str(buffer.rows)]
        kind = np.dtype(_NUMPY[buffer.dtype])
        raw = self.arena[buffer.offset : buffer.offset + rows * buffer.cols * kind.itemsize]
        values = raw.view(kind).reshape(rows, buffer.cols)
        if buffer.dtype == "bfloat16":
            return from_bfloat16_bits(values)
        return values.copy() if buffer.dtype in ("float32", "int32") else values.astype(np.float32)

    def _write(self, buffer: Buffer, values: Array) -> None:
        assert values.shape[1] == buffer.cols
        if buffer.dtype != "int32":
            values = round_to(values, buffer.dtype)
        values = bfloat16_bits(values) if buffer.dtype == "bfloat16" else values.astype(_NUMPY[buffer.dtype])
        data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
        self.arena[buffer.offset : buffer.offset + len(data)] = data


def _gated(call: Call, step: StepInputs, y: Array) -> Array:
    if call.attrs["act"] == "none":
        return y
    if not is_gated(call.attrs["act"]):
        return np.asarray(_op("unary", step, {"kind": call.attrs["act"]}, x=y))
    halves = y.reshape(len(y), -1, 2, GATE_UP_INTERLEAVE)
    gate, up = (halves[:, :, i].reshape(len(y), -1)[:, : call.attrs["n"]] for i in (0, 1))
    if call.attrs["act"] == "clamped_swiglu":
        return np.asarray(_op("clamped_swiglu", step, x=gate, y=up))
    gate = _op("unary", step, {"kind": call.attrs["act"].removesuffix("_mul")}, x=gate)
    return _op("mul", step, x=gate, y=up)


def _op(name: str, step: StepInputs, attrs: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
    return OPS[name](OpCall(inputs, attrs or {}, step))[0]


def _softcap(x: Array, cap: float, step: StepInputs) -> Array:
    inner = _op("unary", step, {"kind": "tanh"}, x=_op("scale", step, {"factor": 1.0 / cap}, x=x))
    return np.asarray(_op("scale", step, {"factor": cap}, x=inner))


def _rows(definition: ConstantDef, weights: Mapping[str, Array]) -> Array:
    tail = next(weights[s].shape[1:] for s in definition.sources)
    return np.concatenate(
        [
            np.zeros((len(s), *tail), np.float32)
            if s.source is None
            else altered(weights[s.source][s.start : s.stop], definition)
            for s in definition.segments
        ]
    )
