"""Graphs that differ in one place are told apart there; equal ones are equal whatever their values are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from albireo.graph.node import Graph, Node, TensorType
from albireo.verify.graphs import graph_difference
from verify.models import graph_of


def node(graph: Graph, origin: str, op: str) -> Node:
    return next(n for n in graph.nodes if (n.origin, n.op) == (origin, op))


def rename(graph: Graph) -> None:
    for value in graph.values():
        value.name = f"v{value.name}"


def other_window(graph: Graph) -> None:
    node(graph, "layers.0.attn.attention", "attention").attrs["window"] = 3


def swapped_addends(graph: Graph) -> None:
    inputs = node(graph, "layers.1.mlp.down", "add").inputs
    inputs["x"], inputs["y"] = inputs["y"], inputs["x"]


def other_rows(graph: Graph) -> None:
    weight = node(graph, "layers.1.attn.k", "linear").inputs["weight"]
    assert weight.constant is not None
    (segment,) = weight.constant.segments
    weight.constant = replace(weight.constant, segments=(replace(segment, source="another"),))


def other_type(graph: Graph) -> None:
    made = node(graph, "layers.0.mlp.act", "cast")
    made.outputs[0].type = TensorType("float16", made.outputs[0].type.dims)


def shorter(graph: Graph) -> None:
    graph.nodes.pop()


def other_op(graph: Graph) -> None:
    node(graph, "layers.0.mlp.act", "mul").op = "add"


CHANGES: list[tuple[Callable[[Graph], None], str]] = [
    (other_window, "layers.0.attn.attention (attention): window is 3, the checkpoint's is None"),
    (swapped_addends, "layers.1.mlp.down (add): x is %"),
    (other_rows, "layers.1.attn.k (linear): weight is bfloat16[32, 32] of another, the checkpoint's is "),
    (other_type, "layers.0.mlp.act (cast): gives float16["),
    (shorter, "head.top (top_logits): the graph has "),
    (other_op, "layers.0.mlp.act (mul): is add of layers.0.mlp.act, the checkpoint's is mul"),
]


def test_equal_graphs(built: tuple[Path, Path]) -> None:
    ours = graph_of(built[0], "bfloat16")
    rename(ours)
    assert graph_difference(ours, graph_of(built[0], "bfloat16")) == ""


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda v: getattr(v, "__name__", ""))
def test_one_difference(change: Callable[[Graph], None], said: str, built: tuple[Path, Path]) -> None:
    ours = graph_of(built[0], "bfloat16")
    change(ours)
    assert said in graph_difference(ours, graph_of(built[0], "bfloat16"))
