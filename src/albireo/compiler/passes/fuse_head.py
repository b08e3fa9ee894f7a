"""The head and the arg max over its logits: one kernel, so that greedy rows never write their logits."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.compiler.softcap_pattern import Softcap, match_softcap
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "a greedy row needs the best id alone: its logits stay in registers"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_head", WHY, "exact")
    for top in rw.nodes("top_logits"):
        capped = match_softcap(top.inputs["logits"])
        linear = made_by(capped.x if capped else top.inputs["logits"], "linear")
        if linear is not None:
            with rw.attempt(linear, top):
                _fuse(rw, linear, capped, top)
    return rw.finish()


def _fuse(rw: Rewriter, linear: Node, capped: Softcap | None, top: Node) -> None:
    between = capped.nodes if capped else ()
    for node in (linear, *between):
        rw.sole_user(node.output)
    if "chunks" in linear.attrs:
        raise NotFired("the kernel adds products as one chain, not as a tree")
    if "bias" in linear.inputs:
        raise NotFired("the head has a bias")
    weight = linear.inputs["weight"]
    n, k = weight.type.dims
    roles = {"x": linear.inputs["x"], "weight": weight}
    attrs = {"n": n, "k": k} | ({"softcap": capped.cap} if capped else {})
    rw.fuse((linear, *between, top), "head_top", attrs, roles, top.outputs)
