"""The embedding gather becomes a kernel call of its own."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "gives the gather its kernel, which may read the table as it is packed for the head"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_embed", WHY, "exact")
    for embed in rw.nodes("embed"):
        width = embed.inputs["table"].type.dims[1]
        rw.fuse((embed,), "embed", {"width": width}, dict(embed.inputs), embed.outputs)
    return rw.finish()
