"""What meets e4m3 weights becomes e4m3 numbers, a scale for each 128, where a backend multiplies the two (W8A8)."""

from __future__ import annotations

from albireo.compiler.activations import Casts, drop_unread, read_rounded
from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.dtypes import FP8_TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.graph.node import Graph, Node
from albireo.graph.report import PassRecord

WHY = "8-bit floats are multiplied twice as fast as bfloat16, and as they lie: no code is turned into a number"


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "narrow_activations", WHY, "quantizes")
    casts: Casts = {}
    for linear in (*rw.nodes("linear"), *rw.nodes("expert_linear")):
        if takes_narrow(linear.inputs["weight"].type.dtype):
            with rw.attempt(linear):
                _check(linear)
                read_rounded(rw, linear, FP8_TOKEN, casts)
    drop_unread(rw)
    return rw.finish()


def takes_narrow(weight: str) -> bool:
    """Whether a linear with weights of this type may read rows of e4m3, where a backend is able to."""
    return is_encoding(weight) and encoding(weight).kind == "float"


def _check(linear: Node) -> None:
    if "keeps" in linear.attrs:
        raise NotFired(f"activations are to stay {linear.attrs['keeps']}")
    if linear.attrs.get("role") == "vocab":
        raise NotFired("logits are the last to be rounded, and few rows become any")
    if "chunks" in linear.attrs:
        raise NotFired("sums of several ranks are not formed from rows of codes")
