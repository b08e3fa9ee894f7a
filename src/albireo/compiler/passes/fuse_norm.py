"""A norm with the gather of its rows before it and the rounding, or the residual, after it: one kernel."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by, norm_attrs
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "the norm reads the float32 residual once and writes what the next linear multiplies, rounded"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_norm", WHY, "exact")
    for norm in rw.nodes("rms_norm"):
        if norm.attrs["num_heads"] == 1:
            with rw.attempt(norm, *rw.users(norm.output)):
                _fuse(rw, norm)
    return rw.finish()


def _fuse(rw: Rewriter, norm: Node) -> None:
    x, rows, members = norm.inputs["x"], None, [norm]
    add = rw.only(norm.output, "add")
    if add is not None:
        _with_residual(rw, norm, add)
        return
    gather = made_by(x, "gather_rows")
    # a gather that others read too is a call of its own
    if gather is not None and rw.users(x) == [norm] and not rw.is_output(x):
        members.insert(0, gather)
        x, rows = gather.inputs["x"], gather.inputs["rows"]
    cast = rw.only(norm.output, "cast")
    if cast is not None:
        members.append(cast)
    rw.fuse(members, "norm", norm_attrs(norm), {**norm.inputs, "x": x, "rows": rows}, members[-1].outputs)


def _with_residual(rw: Rewriter, norm: Node, add: Node) -> None:
    """The norm of what attention or FFN gives, where it is added."""
    x, y = add.inputs["x"], add.inputs["y"]
    if x is y:
        raise NotFired(f"{x} is added to itself")
    residual = x if y is norm.output else y
    rw.fuse((norm, add), "norm", norm_attrs(norm), {**norm.inputs, "residual": residual}, add.outputs)
