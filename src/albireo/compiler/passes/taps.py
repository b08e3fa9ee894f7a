"""Hidden states of all rows leave the model, beside logits: what a head that drafts reads.

Not one of pipeline.PASSES: it is applied to the graph that the others start from, where such a head is asked for. The
constants stay as they are. Behind the last tap nothing is computed for rows that others do without; before it all rows
are.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.compiler.passes.hidden_states import final_norm
from albireo.compiler.rewrite import NotFired
from albireo.errors import UnsupportedModel
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.outputs import TAP

#: In place of a layer's number: what the last norm gave.
FINAL = -1


def run(graph: Graph, layers: Sequence[int], factor: float = 1.0) -> None:
    """Hand out what each of these layers reads. Args: factor: what the residual stream is multiplied by, where it is
    kept divided.

    Raises: UnsupportedModel for a graph in which these are not to be found.
    """
    for number, layer in enumerate(layers):
        value = _normed(graph) if layer == FINAL else _scaled(graph, read_by(graph, layer), factor)
        graph.outputs[f"{TAP}{number}"] = value


def read_by(graph: Graph, layer: int) -> Value:
    """What the first norm of a layer, or of the head, reads: the residual stream.

    Args: layer: at least 1; the number of layers: the head. Raises: UnsupportedModel.
    """
    for node in graph.nodes:
        if node.op == "rms_norm" and node.origin.startswith((f"layers.{layer}.", "head")):
            x = node.inputs["x"]
            if x.producer is not None and x.producer.origin.startswith(f"layers.{layer - 1}."):
                return x
    raise UnsupportedModel(f"what layer {layer} reads is not to be found: layers of this model are of another kind")


def _normed(graph: Graph) -> Value:
    """What the last norm gives, of all rows."""
    try:
        norm = final_norm(graph)
    except NotFired as refusal:
        raise UnsupportedModel(f"hidden states are not to be found in this model: {refusal}") from None
    x = norm.inputs["x"]
    value = Value(f"{norm.output.name}t", TensorType("float32", x.type.dims))
    _insert(graph, Node("rms_norm", dict(norm.inputs), dict(norm.attrs), (value,), norm.origin), behind=x)
    weight = norm.inputs["weight"].constant if "weight" in norm.inputs else None
    # what logits are divided by is in the norm's weights
    return value if weight is None else _scaled(graph, value, 1.0 / weight.factor)


def _scaled(graph: Graph, x: Value, factor: float) -> Value:
    if factor == 1.0:
        return x
    value = Value(f"{x.name}f", x.type)
    origin = x.producer.origin if x.producer is not None else ""
    _insert(graph, Node("scale", {"x": x}, {"factor": factor}, (value,), origin), behind=x)
    return value


def _insert(graph: Graph, node: Node, behind: Value) -> None:
    assert behind.producer is not None, "it is no input"
    node.output.producer = node
    graph.nodes.insert(graph.nodes.index(behind.producer) + 1, node)
