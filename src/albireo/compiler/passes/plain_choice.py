"""A number that all weights of a choice of keys are multiplied by goes: it changes no choice."""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "the best are the best, whatever all scores are multiplied by: a pass over memory less"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "plain_choice", WHY, "removes rounding")
    for choice in rw.nodes("choose_keys"):
        if "weights" in choice.inputs:
            with rw.attempt(choice):
                _drop(rw, choice)
    return rw.finish()


def _drop(rw: Rewriter, choice: Node) -> None:
    weights = choice.inputs["weights"]
    scale = made_by(weights, "scale")
    if scale is None or rw.sole_user(weights) is not choice or scale.attrs["factor"] <= 0:
        raise NotFired(f"{weights} is no positive number times others, read by nobody else")
    rw.bypass(scale, scale.inputs["x"])
