"""What is done to each number, or to each head, of a row, with the rounding behind it: one kernel, which writes what is
rounded anyway."""

from __future__ import annotations

from albireo.compiler.passes.single_ops import SINGLES
from albireo.compiler.rewrite import Rewriter
from albireo.dtypes import ROW_CODES
from albireo.graph.node import Graph
from albireo.graph.report import PassRecord

WHY = "a number that is in a register is rounded there; rounding apart writes it as float32 and reads it back"
#: Ops whose kernels write any compute type.
_OPS = ("unary", "add", "mul", "scale", "scale_by", "gain", "shift", "clip", "rms_norm")


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "fuse_rounding", WHY, "exact")
    for op in _OPS:
        for node in rw.nodes(op):
            users = rw.users(node.output)
            if len(users) != 1 or users[0].op != "cast" or rw.is_output(node.output):
                continue
            with rw.attempt(node):
                family, attrs, roles = SINGLES[op](node)
                if users[0].attrs["dtype"] not in ROW_CODES and family in ("elementwise", "head_norm"):
                    rw.fuse((node, users[0]), family, attrs, roles, users[0].outputs)
    return rw.finish()
