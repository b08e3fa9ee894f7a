"""Rows of pictures are added behind some layers, too: the graph that computes steps with pictures of Qwen3-VL.

Not one of pipeline.PASSES: it is applied to the graph that the others start from, for a second program of the model, so
that steps without pictures do without.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.compiler.passes.taps import read_by
from albireo.graph.node import Graph, Node, Value


def run(graph: Graph, layers: Sequence[int]) -> None:
    """Add what a step gives at places 1, 2, ... to what each of these layers leaves.

    Raises: UnsupportedModel for a graph in which these are not to be found.
    """
    for place, layer in enumerate(layers, 1):
        x = read_by(graph, layer + 1)
        y = Value(f"{x.name}d", x.type)
        for node in graph.nodes:
            node.inputs = {role: y if value is x else value for role, value in node.inputs.items()}
        node = Node("add_given", {"x": x}, {"place": place}, (y,), f"layers.{layer}.deepstack")
        y.producer = node
        assert x.producer is not None, "a layer left it"
        graph.nodes.insert(graph.nodes.index(x.producer) + 1, node)
