"""A linear of heads, heads put side by side, or a convolution, and the rounding of the result to the compute type: one
kernel.
"""

from __future__ import annotations

from albireo.compiler.passes.single_ops import SINGLES
from albireo.compiler.rewrite import Rewriter
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "what is in registers is rounded there; rounding apart writes it as float32 and reads it back"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_head_cast", WHY, "exact")
    for op in ("head_linear", "join_heads", "causal_conv", "depthwise_conv"):
        for node in rw.nodes(op):
            with rw.attempt(node):
                cast = rw.only(node.output, "cast")
                if cast is not None and cast.attrs["dtype"] not in ROW_CODES:
                    family, attrs, roles = SINGLES[op](node)
                    rw.fuse((node, cast), family, attrs, roles, cast.outputs)
    return rw.finish()
