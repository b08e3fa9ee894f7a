"""Graphs that are legal and that no engine can run: kernels would read a step's arrays behind their ends."""

from __future__ import annotations

import pytest

from albireo.artifact.graph_fit import check_fit
from albireo.errors import Corrupt, VersionMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.graph.spec import check_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config import ModelConfig, parse_config
from tiny_models import MIXTURES
from variants import MIXED, architecture_of, tiny_of


def config() -> ModelConfig:
    architecture = load_architecture("llama")
    return parse_config(architecture.tiny, architecture.rules)


def with_side_branch(op: str) -> Graph:
    """The model's graph, and an op on logit rows beside it, whose result goes nowhere."""
    b = GraphBuilder()
    b.graph = build_graph(config(), 64)
    b.kv = b.graph.outputs["kv"]
    x = b.graph.nodes[0].output
    rows = b.gather_rows(x, b.graph.inputs["logit_rows"])
    if op == "top_logits":
        b.top_logits(rows)
        return b.graph
    attention = next(node for node in b.graph.nodes if node.op == "attention")
    weight = next(node.inputs["weight"] for node in b.graph.nodes if node.op == "linear")
    b.attention(b.linear(rows, weight), **attention.attrs)
    return b.graph


@pytest.mark.parametrize(("op", "message"), [("top_logits", "wanted G rows"), ("attention", "wanted T rows")])
def test_rows_that_the_step_does_not_have(op: str, message: str) -> None:
    graph = with_side_branch(op)
    check_graph(graph)
    with pytest.raises(Corrupt, match=message):
        check_fit(graph, config(), "graph.json")


def test_the_models_own_graph_fits() -> None:
    check_fit(build_graph(config(), 64), config(), "graph.json")


@pytest.mark.parametrize("model_type", [*MIXTURES, *MIXED])
def test_experts_that_there_are_none_of(model_type: str) -> None:
    """Ids that are chosen among more experts than a matrix has would be read behind its end."""
    settings = parse_config(tiny_of(model_type), architecture_of(model_type).rules)
    graph = build_graph(settings, 64)
    check_fit(graph, settings, "graph.json")
    linear = next(node for node in graph.nodes if node.op == "expert_linear")
    weight = linear.inputs["weight"]
    b = GraphBuilder()
    b.graph = graph
    few = b.experts(("a", "b"), "few", (8, int(weight.type.dims[1])), "float32")
    b.expert_linear(linear.inputs["x"], linear.inputs["ids"], few, 2, "ffn")
    check_graph(graph)
    with pytest.raises(Corrupt, match="is no choice among 2 experts"):
        check_fit(graph, settings, "graph.json")


def test_a_graph_of_before_models_chose_positions() -> None:
    chooses = architecture_of("deepseek_v32")
    settings = parse_config(tiny_of("deepseek_v32"), chooses.rules)
    check_fit(chooses.build(settings, 64), settings, "graph.json")
    old = architecture_of("deepseek_v3").build(settings, 8)
    with pytest.raises(VersionMismatch, match="build the engine directory again"):
        check_fit(old, settings, "graph.json")
