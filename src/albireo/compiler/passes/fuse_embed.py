"""The embedding gather becomes a kernel call of its own, with the number that embeddings are multiplied by."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "gives the gather its kernel, which may read the table as it is packed for the head"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_embed", WHY, "exact")
    for embed in rw.nodes("embed"):
        attrs, members = {"width": embed.inputs["table"].type.dims[1], **embed.attrs}, [embed]
        with rw.attempt(embed):
            scale = rw.only(embed.output, "scale")
            # a factor of 0 stands for none in a program
            if scale is not None and scale.attrs["factor"] != 0.0:
                attrs["scale"] = scale.attrs["factor"]
                members.append(scale)
        rw.fuse(members, "embed", attrs, dict(embed.inputs), members[-1].outputs)
    return rw.finish()
