"""The linears of q, k and v, which read the same input, become one."""

from __future__ import annotations

from albireo.compiler.qkv_pattern import around, match_qkv
from albireo.compiler.rewrite import NotFired, Rewriter, made_by, merge_linears
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "one linear reads its input once, has more columns to share among threads, and needs one barrier"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "merge_qkv", WHY, "exact")
    for write in rw.nodes("kv_write"):
        with rw.attempt(*around(rw, write)):
            sources = match_qkv(rw, write).sources
            linears = [node for value in sources if (node := made_by(value, "linear")) is not None]
            if len(linears) == 3:
                merge_linears(rw, linears)
            elif linears:
                raise NotFired(f"only {len(linears)} of q, k, v come from a linear of their own")
    return rw.finish()
