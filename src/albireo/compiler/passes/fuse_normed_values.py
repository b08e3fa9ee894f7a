"""fuse_qkv_rope_kv where heads of v are normed, too, for backends whose kernel can."""

from __future__ import annotations

from albireo.compiler.passes import fuse_qkv_rope_kv
from albireo.compiler.qkv_pattern import around, match_qkv
from albireo.compiler.rewrite import Rewriter
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "values are normed in registers, as keys are, and written by the same kernel"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_normed_values", WHY, "exact")
    for write in rw.nodes("kv_write"):
        if "v" in write.inputs:
            with rw.attempt(*around(rw, write)):
                fuse_qkv_rope_kv.fuse(rw, match_qkv(rw, write), norms_v=True)
    return rw.finish()
