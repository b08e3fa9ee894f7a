"""The head and the arg max over its logits: one kernel, so that greedy rows never write their logits."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "a greedy row needs the best id alone: its logits stay in registers"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_head", WHY, "exact")
    for top in rw.nodes("top_logits"):
        linear = made_by(top.inputs["logits"], "linear")
        if linear is not None:
            with rw.attempt(linear, top):
                _fuse(rw, linear, top)
    return rw.finish()


def _fuse(rw: Rewriter, linear: Node, top: Node) -> None:
    rw.sole_user(linear.output)
    if "chunks" in linear.attrs:
        raise NotFired("the kernel adds products as one chain, not as a tree")
    if "bias" in linear.inputs:
        raise NotFired("the head has a bias")
    weight = linear.inputs["weight"]
    n, k = weight.type.dims
    roles = {"x": linear.inputs["x"], "weight": weight}
    rw.fuse((linear, top), "head_top", {"n": n, "k": k}, roles, top.outputs)
