"""The sum over ranks with what is done to it: bias and residual."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "bias and residual are added while the sum is in registers, not in further passes over memory"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_all_reduce", WHY, "exact")
    for reduce in rw.nodes("all_reduce"):
        with rw.attempt(reduce, *rw.users(reduce.output)):
            _fuse(rw, reduce)
    return rw.finish()


def _fuse(rw: Rewriter, reduce: Node) -> None:
    y = reduce.output
    attrs = {"n": y.type.dims[-1], "ranks": reduce.attrs["ranks"]}
    roles: dict[str, Value | None] = {"x": reduce.inputs["x"], "bias": reduce.inputs.get("bias")}
    add = rw.only(y, "add")
    if add is None:
        rw.fuse((reduce,), "all_reduce", attrs, roles, reduce.outputs)
        return
    x, other = add.inputs["x"], add.inputs["y"]
    if x is other:
        raise NotFired(f"{x} is added to itself")
    roles["residual"] = x if other is y else other
    rw.fuse((reduce, add), "all_reduce", attrs, roles, add.outputs)
