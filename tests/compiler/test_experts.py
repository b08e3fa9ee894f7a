"""Layers with experts in the compiler: what is legal, how their constants lie, what passes say of near misses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from albireo.compiler.passes import choose_precision, fuse_combine, merge_gate_up
from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import ConstantDef, Graph, RowSegment, Value
from albireo.graph.program import Call, Program, weight_rows
from albireo.graph.program_checks import check_program
from albireo.graph.spec import check_graph
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog, model_graph

WIDTH, FFN, EXPERTS, TOP_K = 16, 40, 3, 2


class Layer:
    """One layer of experts over embedded tokens, with something to spoil."""

    def __init__(self, top_k: int = TOP_K) -> None:
        self.b = GraphBuilder()
        self.x = self.b.embed(self.b.token_ids, self.b.weight("table", (11, WIDTH), "float32"))
        router = self.b.weight("router", (EXPERTS, WIDTH), "float32")
        self.ids, self.weights = self.b.route(self.b.linear(self.x, router), top_k, True)

    def of(self, name: str, x: Value, rows: int, ids: Value | None = None) -> Value:
        columns = int(x.type.dims[1])
        names = tuple(f"{name}.{e}" for e in range(EXPERTS))
        weight = self.b.experts(names, name, (rows, columns), "float32")
        return self.b.expert_linear(x, self.ids if ids is None else ids, weight, EXPERTS, "ffn")

    def gated(self, gate: Value, up: Value) -> Graph:
        m = self.b.mul(self.b.unary(gate, "silu"), up)
        return self.b.finish(out=self.b.add(self.x, self.b.combine(self.of("down", m, WIDTH), self.weights)))


def test_layers_choose_as_many_experts() -> None:
    layer = Layer()
    graph = layer.gated(layer.of("gate", layer.x, FFN), layer.of("up", layer.x, FFN))
    check_graph(graph)
    assert graph.top_k == TOP_K
    next(node for node in graph.nodes if node.op == "expert_linear").attrs["top_k"] = 1
    with pytest.raises(InvariantError, match=r"expert_linear of .* with ids"):
        check_graph(graph)
    for top_k in (0, EXPERTS + 1):
        with pytest.raises(InvariantError, match=f"route chooses {top_k} of"):
            Layer(top_k)


def test_blocks_of_rows() -> None:
    definition = ConstantDef((RowSegment("a", 0, 5), RowSegment("b", 2, 3), RowSegment(None, 0, 6)))
    first, second, third = definition.blocks(3)
    assert first.segments == (RowSegment("a", 0, 4),)
    assert second.segments == (RowSegment("a", 4, 5), RowSegment("b", 2, 3), RowSegment(None, 0, 2))
    assert third.segments == (RowSegment(None, 2, 6),)
    assert [block.segments for block in definition.blocks(1)] == [definition.segments]


def program() -> Program:
    graph = model_graph("qwen2_moe", "bfloat16")
    return compile_graph(graph, FakeCatalog(), maxima=MAXIMA, block_size=BLOCK_SIZE, max_positions=MAX_POSITIONS)


def test_each_expert_has_whole_panels_of_its_own() -> None:
    """Seven experts of 44 channels, width 40: gate and up 32 in turn, and rows of zeros to the end of a panel."""
    made = program()
    gated, down = [call for call in made.calls if call.family == "expert_linear"][:2]
    of_gate, of_down = (made.constants[call.args["weight"]] for call in (gated, down))
    assert (of_gate.rows, of_gate.cols) == (7 * 128, 40) == (7 * weight_rows(44, "silu_mul"), 40)
    assert (of_down.rows, of_down.cols) == (7 * 64, 44) == (7 * weight_rows(40, "none"), 44)
    assert of_gate.definition is not None and of_down.definition is not None
    name = "model.layers.1.mlp.experts.{}.{}_proj.weight".format
    third = of_gate.definition.blocks(7)[3].segments
    assert third == (
        RowSegment(name(3, "gate"), 0, 32),
        RowSegment(name(3, "up"), 0, 32),
        RowSegment(name(3, "gate"), 32, 44),
        RowSegment(None, 0, 20),
        RowSegment(name(3, "up"), 32, 44),
        RowSegment(None, 0, 20),
    )
    assert of_down.definition.blocks(7)[6].segments == (RowSegment(name(6, "down"), 0, 40), RowSegment(None, 0, 24))
    assert made.maxima["P"] == 3 * made.maxima["T"] and made.top_k == 3


def damaged(family: str, **changes: Any) -> Callable[[Program], Program]:
    def damage(p: Program) -> Program:
        calls = list(p.calls)
        i = next(i for i, call in enumerate(calls) if call.family == family)
        merged = {name: {**getattr(calls[i], name), **value} for name, value in changes.items()}
        calls[i] = replace(calls[i], **merged)
        return replace(p, calls=tuple(calls))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        damaged("route", attrs={"top_k": 2}),
        damaged("expert_linear", attrs={"num_experts": 6}),
        damaged("expert_linear", attrs={"top_k": 2}),
        damaged("expert_linear", attrs={"n": 43}),
        damaged("expert_linear", attrs={"act": "none"}),
        damaged("expert_linear", args={"ids": "top_ids"}),
        damaged("combine", args={"weights": "h"}),
        damaged("gate_rows", args={"gate": "x"}),
        lambda p: replace(p, maxima={**p.maxima, "P": 2 * p.maxima["T"]}),
    ],
)
def test_programs_that_do_not_fit_are_refused(damage: Callable[[Program], Program]) -> None:
    check_program(program())
    with pytest.raises(InvariantError):
        check_program(damage(program()))


def test_families_are_named_in_a_program() -> None:
    families = {call.family: call for call in program().calls}
    wanted: dict[str, Call] = {name: families[name] for name in ("route", "expert_linear", "combine", "gate_rows")}
    assert {name: call.rows for name, call in wanted.items()} == {
        "route": "T",
        "expert_linear": "P",
        "combine": "T",
        "gate_rows": "T",
    }


def test_gate_and_up_of_other_experts_are_not_merged() -> None:
    layer = Layer()
    other, _ = layer.b.route(layer.b.linear(layer.x, layer.b.weight("other", (EXPERTS, WIDTH), "float32")), TOP_K, True)
    graph = layer.gated(layer.of("gate", layer.x, FFN), layer.of("up", layer.x, FFN, other))
    _, (record,) = run_passes(graph, [merge_gate_up.run])
    assert not record.firings and "are not of the same experts" in record.refusals[0].reason


def test_experts_of_several_encodings_stay_numbers() -> None:
    graph = model_graph("mixtral", "bfloat16")
    odd = "model.layers.0.block_sparse_moe.experts.3.w2.weight"
    record = choose_precision.run(graph, lambda name, role: None if role != "row" or name == odd else "int8")
    kinds = {name: v.type.dtype for name, v in graph.constants.items() if name.endswith("w2.weight")}
    assert sorted(kinds.values()) == ["bfloat16", "int8"]
    assert [r.reason for r in record.refusals] == ["its matrices are of several kinds: int8, numbers"]


def test_a_sum_that_is_read_twice_keeps_its_addition() -> None:
    layer = Layer()
    m = layer.b.mul(layer.b.unary(layer.of("gate", layer.x, FFN), "silu"), layer.of("up", layer.x, FFN))
    total = layer.b.combine(layer.of("down", m, WIDTH), layer.weights)
    graph = layer.b.finish(out=layer.b.add(layer.x, total), total=total)
    _, (record,) = run_passes(graph, [fuse_combine.run])
    assert not record.firings and "is an output of the graph" in record.refusals[0].reason
