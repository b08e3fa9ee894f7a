"""Drop ops that change nothing, so that later patterns need one spelling only."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter, made_by
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "a cast to the same type, a scale by 1, a split in one part and an op nobody reads cost time and say nothing"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "canonicalize", WHY, "exact")
    for node in rw.nodes("cast"):
        _drop_cast(rw, node)
    for node in rw.nodes("scale"):
        if node.attrs["factor"] == 1.0:
            rw.bypass(node, node.inputs["x"])
    for node in rw.nodes("split"):
        if len(node.outputs) == 1:
            rw.bypass(node, node.inputs["x"])
    for node in reversed(graph.nodes):
        if rw.is_alive(node) and not any(rw.is_output(v) or rw.users(v) for v in node.outputs):
            rw.drop(node)
    return rw.finish()


def _drop_cast(rw: Rewriter, node: Node) -> None:
    x, dtype = node.inputs["x"], node.attrs["dtype"]
    if x.type.dtype == dtype:
        rw.bypass(node, x)
        return
    # widened and rounded back: float32 holds every value of the narrow types
    widening = made_by(x, "cast")
    if widening is not None and x.type.dtype == "float32" and widening.inputs["x"].type.dtype == dtype:
        rw.bypass(node, widening.inputs["x"])
