"""Rows of sounds are added to embeddings, in place of which they else stand: the graph of steps that have some, of
Voxtral Realtime.

Not one of pipeline.PASSES: it is applied to the graph that the others start from, for a second program of the model.
"""

from __future__ import annotations

from albireo.errors import UnsupportedModel
from albireo.graph.node import Graph, Node, Value


def run(graph: Graph) -> None:
    """Add what a step gives to what it reads of the table. Raises: UnsupportedModel where that is not to be found."""
    found = [node for node in graph.nodes if node.op == "embed" and node.inputs["ids"] is graph.inputs["token_ids"]]
    if len(found) != 1:
        raise UnsupportedModel(f"{len(found)} tables of embeddings are read; rows are added to what one gives")
    (embed,) = found
    embed.attrs["never_given"] = True
    x = embed.output
    y = Value(f"{x.name}g", x.type)
    for node in graph.nodes:
        node.inputs = {role: y if value is x else value for role, value in node.inputs.items()}
    node = Node("add_given", {"x": x}, {"place": 0}, (y,), "embed.given")
    y.producer = node
    graph.nodes.insert(graph.nodes.index(embed) + 1, node)
