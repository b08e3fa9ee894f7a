"""Multiply constant factors together, and into attention's own scale."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter, made_by
from albireo.graph.node import Graph, Node, Value
from albireo.graph.report import PassRecord

WHY = "one multiplication by a product of constants replaces several passes over the activations"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fold_scale", WHY, "reorder")
    for node in rw.nodes("scale"):
        inner = made_by(node.inputs["x"], "scale")
        if inner is not None:
            with rw.attempt(node):
                rw.sole_user(inner.output)
                _multiply(rw, inner, node)
    for node in rw.nodes("attention"):
        q = node.inputs["q"]
        cast = made_by(q, "cast")
        scale = made_by(cast.inputs["x"] if cast is not None else q, "scale")
        if scale is not None:
            with rw.attempt(node):
                rw.sole_user(q)
                rw.sole_user(scale.output)
                _into_attention(rw, scale, cast, node)
    return rw.finish()


def _multiply(rw: Rewriter, inner: Node, outer: Node) -> None:
    factor = inner.attrs["factor"] * outer.attrs["factor"]
    rw.saves(inner.output)
    rw.replace((inner, outer), (Node("scale", dict(inner.inputs), {"factor": factor}, outer.outputs, outer.origin),))


def _into_attention(rw: Rewriter, scale: Node, cast: Node | None, attention: Node) -> None:
    q = scale.inputs["x"]
    new = []
    if cast is not None:
        rounded = Value(cast.output.name, cast.output.type)
        new.append(Node("cast", {"x": q}, dict(cast.attrs), (rounded,), cast.origin))
        q = rounded
    attrs = attention.attrs | {"scale": attention.attrs["scale"] * scale.attrs["factor"]}
    new.append(Node("attention", attention.inputs | {"q": q}, attrs, attention.outputs, attention.origin))
    rw.saves(scale.output)
    rw.replace([n for n in (scale, cast, attention) if n is not None], new)
