"""cap * tanh(x / cap) in base ops: a scale, a tanh and the inverse scale.

Used by passes/fuse_head.py and passes/single_ops.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.compiler.rewrite import made_by
from albireo.graph.node import Node, Value


@dataclass(frozen=True, slots=True)
class Softcap:
    """Fields: x: what is capped. nodes: the three, in order."""

    x: Value
    cap: float
    nodes: tuple[Node, Node, Node]


def match_softcap(out: Value) -> Softcap | None:
    """The pattern whose result is out; None when something else makes it. Others may read what lies between."""
    outer = made_by(out, "scale")
    tanh = made_by(outer.inputs["x"], "unary") if outer is not None else None
    inner = made_by(tanh.inputs["x"], "scale") if tanh is not None else None
    if outer is None or tanh is None or inner is None or tanh.attrs["kind"] != "tanh":
        return None
    cap = float(outer.attrs["factor"])
    if cap <= 0.0 or inner.attrs["factor"] != 1.0 / cap:
        return None
    return Softcap(inner.inputs["x"], cap, (inner, tanh, outer))
