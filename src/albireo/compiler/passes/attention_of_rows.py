"""Attention of the last layer for the rows that leave the model only, where a kernel can be told which."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, body_of, label
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "of a prompt one row leaves the model, and the others' attention in the last layer is read by nobody"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "attention_of_rows", WHY, "exact")
    for node in rw.nodes("fused"):
        if node.family == "attention":
            users = rw.users(node.output)
            if any(user.family == "gather" or user.op == "cast" for user in users):
                with rw.attempt(node, *users):
                    _fuse(rw, node)
    return rw.finish()


def _fuse(rw: Rewriter, attention: Node) -> None:
    """attention, [a cast to codes, which needs the whole row,] gather -> attention of rows, [cast]."""
    members, made = [attention], attention.output
    cast = rw.only(made, "cast")
    if cast is not None:
        members.append(cast)
    gather = rw.sole_user(members[-1].output)
    if gather.family != "gather":
        raise NotFired(f"{members[-1].output} is needed for all rows, by {label(gather)}")
    rows, out = gather.inputs["rows"], gather.output
    if out.type.dims[0] != "S":
        raise NotFired(f"{label(gather)} picks rows of {out.type.dims[0]}; a kernel is told of all S that leave")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:
        raise NotFired(f"{label(cast)} is no rounding to codes")
    picked = out if cast is None else Value(f"{made.name}s", TensorType(made.type.dtype, out.type.dims))
    pick = Node("gather_rows", {"x": made, "rows": rows}, {}, (picked,), gather.origin)
    inputs = attention.inputs | {"rows": rows}
    body = body_of([attention, pick], inputs, (picked,))
    new = [Node("fused", inputs, dict(attention.attrs), (picked,), attention.origin, body, "attention")]
    if cast is not None:
        new.append(Node("cast", {"x": picked}, dict(cast.attrs), (out,), cast.origin))
    rw.saves(*(member.output for member in members))
    rw.replace([*members, gather], new)
