"""Graphs that are legal and that no engine can run: kernels would read a step's arrays behind their ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from albireo.artifact.graph_fit import check_fit
from albireo.errors import Corrupt, VersionMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import ConstantDef, Graph, Node, RowSegment, TensorType, Value
from albireo.graph.op_numbers import RECURRENT
from albireo.graph.spec import check_graph
from albireo.models import build_graph, load_architecture
from albireo.models.config import ModelConfig
from albireo.models.config_keys import parse_config
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


Damage = Callable[[Graph], None]


def node(graph: Graph, op: str, role: str = "") -> Node:
    """The first of an op, and of those that have such an input."""
    return next(each for each in graph.nodes if each.op == op and (not role or role in each.inputs))


def made(dims: tuple[int | str, ...], dtype: str = "float32", *, by: Node | None = None, stored: int = 0) -> Value:
    """A value of nowhere, or by a node. Args: stored: rows of a constant."""
    constant = ConstantDef((RowSegment("w", 0, stored),)) if stored else None
    return Value("it", TensorType(dtype, dims), by, constant)


def reads(op: str, role: str, value: Callable[[Graph], Value]) -> Damage:
    """The first node of an op that has this input reads another value."""

    def damage(graph: Graph) -> None:
        node(graph, op, role).inputs[role] = value(graph)

    return damage


def says(op: str, **attrs: Any) -> Damage:
    return lambda graph: node(graph, op).attrs.update(attrs)


def gives(name: str, value: Callable[[Graph], Value]) -> Damage:
    return lambda graph: graph.outputs.update({name: value(graph)})


def has(op: str, inputs: Callable[[Graph], dict[str, Value]], **attrs: Any) -> Damage:
    return lambda graph: graph.nodes.append(Node(op, inputs(graph), attrs))


def renamed(graph: Graph) -> None:
    graph.inputs["positions"].name = "places"


def without_a_cache(graph: Graph) -> None:
    last = [each for each in graph.nodes if each.op == "kv_write"][-1]
    graph.nodes.remove(last)
    graph.outputs["kv"] = last.inputs["kv"]


def _table(graph: Graph) -> tuple[int | str, ...]:
    return node(graph, "embed").inputs["table"].type.dims


def type_table(rows: int) -> Damage:
    def damage(graph: Graph) -> None:
        reader = next(each for each in graph.nodes if each.inputs.get("ids") is graph.inputs["token_types"])
        reader.inputs["table"] = made((rows, 48), stored=rows)

    return damage


def _of_choices(graph: Graph) -> Node:
    return Node("cast", {"x": made(("T", node(graph, "expert_linear").attrs["num_experts"]))}, {})


def _of_experts(graph: Graph) -> dict[str, Value]:
    return {"x": made(("T", 48)), "ids": made(("T", 2), by=node(graph, "linear")), "weight": made((8, 48), stored=8)}


#: Model, what is wrong in its graph, and what is said of it.
DAMAGES: list[tuple[str, Damage, str]] = [
    ("llama", renamed, "an input has another name than its value"),
    ("llama", gives("kv", lambda g: g.inputs["kv"]), "output kv is "),
    ("llama", gives("logits", lambda g: made(("R", 101), stored=1)), "output logits is "),
    ("mamba", gives("logits", lambda g: made(g.outputs["logits"].type.dims, stored=1)), "output logits is "),
    ("llama", gives("logits", lambda g: g.outputs["top_values"]), "output logits is "),
    ("llama", gives("more", lambda g: g.inputs["kv"]), "outputs are "),
    ("llama", without_a_cache, r"\d ops write KV caches, config.json says"),
    ("llama", reads("embed", "table", lambda g: made((100, 48), stored=100)), "says vocab_size "),
    ("llama", reads("embed", "table", lambda g: made(_table(g))), "says vocab_size "),
    ("llama", reads("embed", "table", lambda g: made((*_table(g), 1), stored=1)), "says vocab_size "),
    ("llama", reads("embed", "ids", lambda g: g.inputs["logit_rows"]), "says vocab_size "),
    ("bert", type_table(3), "is read by type, there are 2"),
    ("bert", type_table(1), "is read by type, there are 2"),
    ("ernie", type_table(3), "is read by type, there are 2"),
    ("llama", reads("gather_rows", "rows", lambda g: g.inputs["token_ids"]), "wanted logit_rows or top_rows"),
    ("llama", reads("gather_rows", "x", lambda g: made(("R", 48))), "wanted T rows"),
    ("llama", reads("rope", "positions", lambda g: g.inputs["token_ids"]), "positions are "),
    ("llama", reads("rope", "x", lambda g: made(("R", 48))), "wanted T rows"),
    ("llama", says("attention", head_dim=99), "KV heads of 99"),
    ("mamba", has("attention", lambda g: {"q": made(("T", 8))}, head_dim=8, layer=0), "says that no layer does"),
    ("deepseek_v4", says("kv_write", every=3), "entries are of 3 positions, config.json says "),
    ("deepseek_v4", reads("route", "chosen", lambda g: made(("T", 2))), "is no row of a table"),
    ("deepseek_v4", reads("route", "chosen", lambda g: made(("T", 2), by=node(g, "linear"))), "is no row of a table"),
    ("deepseek_v32", reads("attention", "chosen", lambda g: made(("T", 4))), "is no choice of positions"),
    (
        "deepseek_v32",
        reads("attention", "chosen", lambda g: made(("T", 4), by=node(g, "linear"))),
        "is no choice of positions",
    ),
    ("deepseek_v32", says("choose_keys", block=2), "lists of"),
    ("mamba", reads("linear", "weight", lambda g: made((8, 48))), "the weight of a linear is no constant"),
    ("mixtral", reads("expert_linear", "weight", lambda g: made((8, 48))), "the weight of a linear is no constant"),
    ("mixtral", reads("expert_linear", "ids", lambda g: made(("T", 2), by=node(g, "linear"))), "is no choice among"),
    ("mixtral", reads("expert_linear", "ids", lambda g: made(("T", 2))), "is no choice among"),
    (
        "mixtral",
        reads("expert_linear", "ids", lambda g: made(("T", 2), by=_of_choices(g))),
        "is no choice among",
    ),
    ("llama", has("expert_linear", _of_experts, num_experts=4), "is no choice among 4 experts"),
    ("llama", has("all_reduce", lambda g: {"x": made(("T", 48))}), "cut for ranks already"),
]


@pytest.mark.parametrize(("model_type", "damage", "message"), DAMAGES)
def test_what_would_be_read_elsewhere(model_type: str, damage: Damage, message: str) -> None:
    settings = parse_config(tiny_of(model_type), architecture_of(model_type).rules)
    graph = build_graph(settings, 64)
    check_fit(graph, settings, "graph.json")
    damage(graph)
    with pytest.raises(Corrupt, match=message):
        check_fit(graph, settings, "graph.json")


@pytest.mark.parametrize("model_type", ["mamba", "falcon_mamba"])
def test_weights_of_a_state_are_constants(model_type: str) -> None:
    settings = parse_config(tiny_of(model_type), architecture_of(model_type).rules)
    for role in _weights(build_graph(settings, 64)):
        graph = build_graph(settings, 64)
        state = next(each for each in graph.nodes if each.op in RECURRENT)
        state.inputs[role] = Value("it", state.inputs[role].type)
        with pytest.raises(Corrupt, match="its weights are no constants"):
            check_fit(graph, settings, "graph.json")


def _weights(graph: Graph) -> list[str]:
    state = next(each for each in graph.nodes if each.op in RECURRENT)
    return [role for role, value in state.inputs.items() if value.is_constant]
