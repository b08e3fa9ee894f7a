"""A matrix of each head for its part of a row, with the rounding before it, and others' parts of heads behind what it
gives, rotated: one kernel. Queries that meet latents are these.
"""

from __future__ import annotations

from typing import Any

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "each program writes its part of a head where attention reads it: nothing is rotated, or joined, in memory"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_head_rows", WHY, "exact")
    for linear in rw.nodes("head_linear"):
        with rw.attempt(linear):
            _fuse(rw, linear)
    return rw.finish()


def _fuse(rw: Rewriter, linear: Node) -> None:
    join = rw.sole_user(linear.output)
    heads = linear.attrs["num_heads"]
    if join.op != "join_heads" or join.inputs["x"] is not linear.output or join.attrs["num_heads"] != heads:
        raise NotFired(f"{linear.output} is read by {join.op}: no parts of as many heads come behind it")
    (rows, k), weight = linear.inputs["weight"].type.dims, linear.inputs["weight"]
    members, roles = [linear, join], {"x": linear.inputs["x"], "weight": weight}
    attrs: dict[str, Any] = {"n": int(rows) // heads, "k": k, "num_heads": heads}
    rounding = made_by(linear.inputs["x"], "cast")
    if rounding is not None and rw.users(rounding.output) == [linear] and not rw.is_output(rounding.output):
        members.append(rounding)
        roles["x"] = rounding.inputs["x"]
    roles["tail"] = _turned(rw, join.inputs["y"], members, roles, attrs)
    if roles["tail"].type.dtype != "float32" or roles["x"].type.dtype not in ("float32", weight.type.dtype):
        raise NotFired(f"{roles['x']} and {roles['tail']} are not both float32")
    cast = rw.only(join.output, "cast")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:
        members.append(cast)
    out = cast.output if cast in members and cast is not None else join.output
    rw.fuse(members, "head_rows", attrs, roles, (out,))


def _turned(rw: Rewriter, y: Value, members: list[Node], roles: dict[str, Value], attrs: dict[str, Any]) -> Value:
    """What is rotated to y, or y itself."""
    rope = made_by(y, "rope")
    if rope is None or {*rope.inputs} - {"x", "positions"} or rope.attrs["num_heads"] != attrs["num_heads"]:
        return y
    if rw.users(y) != [members[1]] or rw.is_output(y):
        return y
    members.append(rope)
    roles["positions"] = rope.inputs["positions"]
    attrs |= {name: rope.attrs[name] for name in ("rope", "side_by_side") if name in rope.attrs}
    return rope.inputs["x"]
