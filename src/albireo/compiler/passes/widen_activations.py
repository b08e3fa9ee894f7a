"""What meets 4-bit weights, integers with zero points or floats, stays bfloat16, where a backend multiplies the two
(W4A16).
"""

from __future__ import annotations

from albireo.compiler.rewrite import NotFired, Rewriter
from albireo.dtypes import TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "checkpoints of 4 bits were made for 16-bit activations: no rounding to 8 bits, nor its launches"
_WIDE = "bfloat16"
_KINDS = ("integer", "microscaled")


def run(graph: Graph) -> PassRecord:
    rw = Rewriter(graph, "widen_activations", WHY, "removes rounding")
    computes = {node.inputs["q"].type.dtype for node in graph.nodes if node.op == "attention"}
    for cast in rw.nodes("cast"):
        users = rw.users(cast.output)
        if cast.attrs["dtype"] == TOKEN and any(_takes_wide(node) for node in users):
            with rw.attempt(cast, *users):
                if computes != {_WIDE}:
                    raise NotFired(f"the model computes in {', '.join(sorted(computes))}, the kernel in {_WIDE}")
                narrow = [node for node in users if not _takes_wide(node)]
                if narrow:
                    raise NotFired(f"{cast.output} is also what {narrow[0].op} {narrow[0].output} reads")
                rw.bypass(cast, _wide(rw, cast))
    return rw.finish()


def takes_wide(weight: str) -> bool:
    """Whether a linear with weights of this type may read bfloat16 for its 8-bit codes, where a backend is able to."""
    return is_encoding(weight) and encoding(weight).bits == 4 and encoding(weight).kind in _KINDS


def _takes_wide(node: Node) -> bool:
    return node.op in ("linear", "expert_linear") and takes_wide(node.inputs["weight"].type.dtype)


def _wide(rw: Rewriter, cast: Node) -> Value:
    """What is rounded to codes, in bfloat16: it may be, or there may be a value that is."""
    source = cast.inputs["x"]
    if source.type.dtype == _WIDE:
        return source
    for node in rw.users(source):
        if node.op == "cast" and node.attrs["dtype"] == _WIDE:
            return node.output
    value = Value(f"{cast.output.name}w", TensorType(_WIDE, source.type.dims))
    return rw.insert(Node("cast", {"x": source}, {"dtype": _WIDE}, (value,), cast.origin), behind=cast).output
