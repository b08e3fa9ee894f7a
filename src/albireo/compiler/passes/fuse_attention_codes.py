"""Attention and the rounding of a token's whole row to 8-bit codes: one kernel, where a backend has it."""

from __future__ import annotations

from albireo.compiler.rewrite import Rewriter
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "whoever brings a token's last head rounds its row, which is still in cache; a launch less in each layer"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_attention_codes", WHY, "exact")
    for node in rw.nodes("fused"):
        if node.family == "attention":
            with rw.attempt(node, *rw.users(node.output)):
                cast = rw.only(node.output, "cast")
                if cast is not None and cast.attrs["dtype"] in ROW_CODES:
                    rw.fuse((node, cast), "attention", dict(node.attrs), dict(node.inputs), cast.outputs)
    return rw.finish()
