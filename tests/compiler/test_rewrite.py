"""Rewriter: users, replacement, order, names; and copies that share nothing a pass changes."""

from __future__ import annotations

import pytest

from albireo.compiler.rewrite import NotFired, Rewriter, copy_graph, label, made_by
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node
from albireo.graph.show import show_graph
from albireo.graph.spec import check_graph
from compiler.examples import Decoder


def chain() -> tuple[Graph, GraphBuilder]:
    """embed -> tanh -> silu -> y, and tanh + silu -> z."""
    b = GraphBuilder()
    with b.part("layers.0"):
        x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
        y = b.unary(x, "tanh")
        z = b.unary(y, "silu")
    return b.finish(y=z, z=b.add(y, z)), b


def rewriter(graph: Graph) -> Rewriter:
    return Rewriter(graph, "test", "why", "exact")


def test_users() -> None:
    graph, _ = chain()
    rw = rewriter(graph)
    embed, tanh, silu, add = graph.nodes
    assert rw.users(tanh.output) == [silu, add] and rw.sole_user(embed.output) is tanh
    assert rw.users(add.output) == [] and rw.is_output(add.output)
    with pytest.raises(NotFired, match="%1 has 2 users"):
        rw.sole_user(tanh.output)
    with pytest.raises(NotFired, match="%2 is an output"):
        rw.sole_user(silu.output)
    assert rw.only(embed.output, "unary") is tanh and rw.only(embed.output, "add") is None
    with pytest.raises(NotFired):
        rw.only(tanh.output, "add")


def test_replace_keeps_values_and_order() -> None:
    graph, _ = chain()
    rw = rewriter(graph)
    _, tanh, silu, _ = graph.nodes
    output = tanh.output
    new = Node("unary", dict(tanh.inputs), {"kind": "sigmoid"}, tanh.outputs, tanh.origin)
    rw.replace((tanh,), (new,))
    assert made_by(output, "unary") is new and rw.users(tanh.inputs["x"]) == [new]
    again = Node("unary", dict(new.inputs), {"kind": "gelu"}, new.outputs, new.origin)
    rw.replace((new,), (again,))
    record = rw.finish()
    check_graph(graph)
    assert [n.attrs.get("kind") for n in graph.nodes] == [None, "gelu", "silu", None]
    assert silu.inputs["x"] is output
    assert record.fired == 2 and record.firings[0].where == "layers.0"
    assert "tanh" in record.firings[0].before[0] and "sigmoid" in record.firings[0].after[0]


def test_bypass_reaches_users_and_outputs() -> None:
    b = GraphBuilder()
    x = b.embed(b.token_ids, b.weight("table", (8, 4), "float32"))
    y = b.scale(x, 1.0)
    graph = b.finish(y=y, z=b.add(x, y))
    rw = rewriter(graph)
    rw.bypass(graph.nodes[1], x)
    assert len(rw.users(x)) == 1 and rw.is_output(x)
    rw.finish()
    check_graph(graph)
    assert graph.outputs["y"] is x and set(graph.nodes[1].inputs.values()) == {x}


def test_fusing_a_fused_node_inlines_its_body() -> None:
    graph, _ = chain()
    rw = rewriter(graph)
    embed, tanh, silu, _ = graph.nodes
    roles = {"ids": embed.inputs["ids"], "table": embed.inputs["table"], "rows": None}
    inner = rw.fuse((embed, tanh), "embed", {"width": 4}, roles, tanh.outputs)
    rw.finish()
    check_graph(graph)
    rw = rewriter(graph)
    outer = rw.fuse((inner, silu), "embed", {"width": 4}, roles, (tanh.output, silu.output))
    rw.finish()
    check_graph(graph)
    assert [n.op for n in outer.body.nodes] == ["embed", "unary", "unary"] and list(outer.inputs) == ["ids", "table"]
    assert graph.nodes[0] is outer and len(graph.nodes) == 2


def test_savings_count_what_is_no_longer_written_and_read() -> None:
    graph, _ = chain()
    rw = rewriter(graph)
    embed, tanh, *_ = graph.nodes
    rw.fuse((embed, tanh), "embed", {"width": 4}, dict(embed.inputs), tanh.outputs)
    assert rw.finish().saved_bytes == {"T": 2 * 4 * 4}


def test_copy_shares_nothing_a_pass_changes() -> None:
    graph = Decoder(layers=2).graph()
    copy = copy_graph(graph)
    assert show_graph(copy, fold=False) == show_graph(graph, fold=False)
    check_graph(copy)
    assert not {*graph.values()} & {*copy.values()} and not {*graph.nodes} & {*copy.nodes}
    copy.nodes[0].attrs["x"] = 1
    assert "x" not in graph.nodes[0].attrs


def test_labels_name_origin_op_and_value() -> None:
    graph, _ = chain()
    assert label(graph.nodes[1]) == "layers.0: unary %1" and label(graph.nodes[3]) == "graph: add %3"
