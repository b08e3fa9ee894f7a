"""The gate and up linears of a gated MLP, which read the same input, become one; gate rows first."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter, made_by, merge_linears
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "one linear reads its input once and holds a gate and its up in the same tile, where they are multiplied"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "merge_gate_up", WHY, "exact")
    for mul in rw.nodes("mul"):
        found = _gate_up_act(mul)
        if found is not None:
            gate, up, act = found
            with rw.attempt(gate, up, act, mul):
                for node in found:
                    rw.sole_user(node.output)
                merge_linears(rw, (gate, up))
    return rw.finish()


def _gate_up_act(mul: Node) -> tuple[Node, Node, Node] | None:
    """The two linears and the unary behind mul(unary(gate), up), whichever operand comes first."""
    x, y = mul.inputs["x"], mul.inputs["y"]
    for gated, straight in ((x, y), (y, x)):
        act, up = made_by(gated, "unary"), made_by(straight, "linear")
        if act is None or up is None:
            continue
        gate = made_by(act.inputs["x"], "linear")
        if gate is not None:
            return gate, up, act
    return None
