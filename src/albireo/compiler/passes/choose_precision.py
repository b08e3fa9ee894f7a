"""Matrices in few bits: their constants get an encoding, and what they are multiplied with is rounded to fit.

Not one of pipeline.PASSES: it changes what is computed, so it is applied once, to the graph that the others start from
and that an engine directory stores.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.compiler.activations import Casts, drop_unread, read_rounded
from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.encodings import encoding
from albireo.graph.node import Graph, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "fewer bits are fewer bytes to read for each token, and 8-bit products are twice as many a cycle"

#: Encoding of a matrix, by its name in the checkpoint and whether it is the head; None: as it is.
Choice = Callable[[str, bool], str | None]


def run(graph: Graph, choose: Choice, weight_only: bool = False) -> PassRecord:
    """weight_only: what meets e4m3 weights is not to become e4m3 numbers itself, whatever a backend can multiply."""
    rw = Rewriter(graph, "choose_precision", WHY, "quantizes")
    casts: Casts = {}
    for linear in rw.nodes("linear"):
        weight = linear.inputs["weight"]
        name = choose(_source(weight), linear.attrs.get("role") == "vocab") if weight.is_constant else None
        if name is None:
            continue
        with rw.attempt(linear):
            if "chunks" in linear.attrs:
                raise NotFired("sums of several ranks are not formed from weights in few bits")
            weight.type = TensorType(name, weight.type.dims)
            if weight_only and encoding(name).kind == "float":
                linear.attrs["keeps"] = encoding(name).activation
            read_rounded(rw, linear, encoding(name).activation, casts)
    drop_unread(rw)
    return rw.finish()


def _source(weight: Value) -> str:
    assert weight.constant is not None
    return weight.constant.sources[0] if len(weight.constant.sources) == 1 else weight.name
