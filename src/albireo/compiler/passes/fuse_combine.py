"""The sum of a token's experts, and the shared expert's gate, with the residual that they are added to."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "the residual is added while a token's sum is in registers, not in a further pass over memory"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_combine", WHY, "exact")
    for op in ("combine", "gate_rows"):
        for node in rw.nodes(op):
            with rw.attempt(node, *rw.users(node.output)):
                _fuse(rw, node)
    return rw.finish()


def _fuse(rw: Rewriter, node: Node) -> None:
    add = rw.only(node.output, "add")
    if add is None:
        return
    x, y = add.inputs["x"], add.inputs["y"]
    if x is y:
        raise NotFired(f"{x} is added to itself")
    roles: dict[str, Value | None] = {**node.inputs, "residual": x if y is node.output else y}
    rw.fuse((node, add), node.op, dict(node.attrs), roles, add.outputs)
