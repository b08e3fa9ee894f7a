"""A gate and its up that are kept below a limit before they are multiplied, with the rounding behind: one kernel."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "two limits, an activation, a product and a rounding are read and written once"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_clipped_gate", WHY, "exact")
    for product in rw.nodes("mul"):
        found = _clipped(product)
        if found:
            with rw.attempt(product, *found):
                _fuse(rw, product, *found)
    return rw.finish()


def _clipped(product: Node) -> tuple[Node, ...]:
    """silu, and what limits the gate and its up; none where these are not there."""
    for gate, up in (("x", "y"), ("y", "x")):
        act, below = made_by(product.inputs[gate], "unary"), made_by(product.inputs[up], "clip")
        above = None if act is None or act.attrs["kind"] != "silu" else made_by(act.inputs["x"], "clip")
        if act is not None and below is not None and above is not None:
            return act, above, below
    return ()


def _fuse(rw: Rewriter, product: Node, act: Node, above: Node, below: Node) -> None:
    limit, roles = above.attrs["most"], {"x": above.inputs["x"], "y": below.inputs["x"]}
    if not above.attrs.get("above") or below.attrs.get("above") or below.attrs["most"] != limit:
        raise NotFired("the gate is not kept below what its up is kept between")
    if any(value.type.dtype != "float32" for value in roles.values()):
        raise NotFired("gate and up are not float32")
    members = [above, below, act, product]
    for node in members[:-1]:
        rw.sole_user(node.output)
    cast = rw.only(product.output, "cast")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:  # which needs the whole row at once
        members.append(cast)
    kind = "clipped_silu_mul"
    out: tuple[Value, ...] = members[-1].outputs
    rw.fuse(members, "elementwise", {"kind": kind, kind: limit}, roles, out)
