"""A gather of rows that is part of no other kernel becomes a call of its own."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "gives the copying of rows its kernel"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_gather", WHY, "exact")
    for gather in rw.nodes("gather_rows"):
        rw.fuse((gather,), "gather", {}, dict(gather.inputs), gather.outputs)
    return rw.finish()
