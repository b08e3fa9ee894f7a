"""A linear whose columns are several values gives each of them where it lies: none is copied.

Behind whatever takes a linear of gate and up, or of q, k and v.
"""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.graph.node import Graph, Node
from albireo.graph.program_spec import MOST_PARTS
from albireo.graph.report import PassRecord

WHY = "kernels read rows any distance apart: a part of a row needs no copy"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "linear_parts", WHY, "exact")
    for split in rw.nodes("split"):
        with rw.attempt(split):
            _fuse(rw, split)
    return rw.finish()


def _fuse(rw: Rewriter, split: Node) -> None:
    linear = split.inputs["x"].producer
    if linear is None or linear.family != "linear" or linear.attrs["act"] != "none" or "chunks" in linear.attrs:
        raise NotFired(f"{split.inputs['x']} is made by no linear alone")
    rw.sole_user(linear.output)
    if {*linear.inputs} & {"bias", "residual"} or linear.output.type.dtype != "float32":
        raise NotFired(f"{linear.output} is {linear.output.type.dtype}, or something is added to it")
    if len(split.outputs) > MOST_PARTS or any(rw.is_output(part) for part in split.outputs):
        raise NotFired(f"{len(split.outputs)} parts, of which {MOST_PARTS} are the most, and none an output")
    rw.fuse((linear, split), "linear_parts", dict(linear.attrs), linear.inputs, split.outputs)
