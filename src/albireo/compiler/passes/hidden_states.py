"""The head gives hidden states in place of logits: the graph that embeddings are computed with.

Not one of pipeline.PASSES: it is applied to the graph that the others start from, for a second program of the model.
The best few logits stay as they are, so that both programs have the same constants, and steps can be mixed.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.compiler.rewrite import NotFired, Rewriter, made_by
from albireo.compiler.softcap_pattern import match_softcap
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.report import PassRecord

WHY = "an embedding is made of hidden states, and has no use for logits"

#: What the final norm gave for the rows in logit_rows, [R, E] float32; in place of logits.
OUTPUT = "hidden"


def problem(graph: Graph) -> str:
    """Why a graph cannot be changed so; empty when it can."""
    try:
        _head(graph)
    except NotFired as refusal:
        return str(refusal)
    return ""


def run(graph: Graph) -> PassRecord:
    """Change the graph, unless the record says why it cannot be."""
    rw = Rewriter(graph, "hidden_states", WHY, "exact")
    with rw.attempt():
        _replace(rw, *_head(graph))
    return rw.finish()


def final_norm(graph: Graph) -> Node:
    """The norm that the head multiplies what it gives. Raises: NotFired."""
    return _head(graph)[0]


def _head(graph: Graph) -> tuple[Node, Node, Sequence[Node]]:
    """The final norm, the gather of its rows, and the linear over them with what caps it. Raises: NotFired."""
    capped = match_softcap(graph.outputs["logits"])
    linear = made_by(capped.x if capped else graph.outputs["logits"], "linear")
    if linear is None:
        raise NotFired("the logits are not those of a linear")
    gather = made_by(linear.inputs["x"], "gather_rows")
    if gather is None:
        raise NotFired("the head does not multiply gathered rows")
    return _final_norm(gather.inputs["x"]), gather, (linear, *(capped.nodes if capped else ()))


def _replace(rw: Rewriter, norm: Node, gather: Node, head: Sequence[Node]) -> None:
    x = norm.inputs["x"]
    type_ = TensorType("float32", (gather.inputs["rows"].type.dims[0], *x.type.dims[1:]))
    rows, hidden = Value(f"{x.name}r", type_), Value(f"{norm.output.name}r", type_)
    new = [
        Node("gather_rows", {"x": x, "rows": gather.inputs["rows"]}, {}, (rows,), gather.origin),
        Node("rms_norm", {**norm.inputs, "x": rows}, dict(norm.attrs), (hidden,), norm.origin),
    ]
    weight = norm.inputs["weight"].constant if "weight" in norm.inputs else None
    if weight is not None and weight.factor != 1.0:  # what logits are divided by is in the norm's weights
        normed, hidden = hidden, Value(f"{hidden.name}s", type_)
        new.append(Node("scale", {"x": normed}, {"factor": 1.0 / weight.factor}, (hidden,), norm.origin))
    rw.replace((gather, *head), new)
    rw.graph.outputs = {OUTPUT if name == "logits" else name: value for name, value in rw.graph.outputs.items()}
    rw.graph.outputs[OUTPUT] = hidden


def _final_norm(value: Value) -> Node:
    """What the head multiplies, before it was rounded."""
    node = value.producer
    while node is not None and node.op == "cast":
        node = node.inputs["x"].producer
    if node is None or node.op != "rms_norm" or node.attrs["num_heads"] != 1:
        raise NotFired("the head does not multiply what a norm gave")
    return node
