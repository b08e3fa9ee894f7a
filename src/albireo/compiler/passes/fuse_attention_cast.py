"""Attention and the rounding of its result to the compute type: one kernel."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "attention divides by the row sum in registers; rounding there saves writing float32 and reading it back"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_attention_cast", WHY, "exact")
    for attention in rw.nodes("attention"):
        with rw.attempt(attention, *rw.users(attention.output)):
            _fuse(rw, attention)
    return rw.finish()


def _fuse(rw: Rewriter, attention: Node) -> None:
    members = [attention]
    cast = rw.only(attention.output, "cast")
    if cast is not None and cast.attrs["dtype"] not in ROW_CODES:  # which needs the whole row at once
        members.append(cast)
    out, q = members[-1].output, attention.inputs["q"]
    if out.type.dtype != q.type.dtype:
        raise NotFired(f"{out} is {out.type.dtype}, the query is {q.type.dtype}")
    # in a program, 0 stands for no window and no cap
    attrs = attention.attrs | {name: attention.attrs[name] or zero for name, zero in (("window", 0), ("softcap", 0.0))}
    rw.fuse(members, "attention", attrs, attention.inputs, (out,))
