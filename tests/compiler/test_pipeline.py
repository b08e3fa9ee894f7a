"""The whole compiler: no pass changes a bit of what a graph computes, and the program computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import single_ops
from albireo.compiler.pipeline import (
    OBLIGATORY,
    PASSES,
    compile_graph,
    optional_passes,
    pass_name,
    passes_without,
    run_passes,
)
from albireo.errors import ConfigError, InvariantError, UnsupportedModel
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.program_checks import check_program
from albireo.graph.program_spec import KINDS
from albireo.graph.report import PassRecord
from albireo.graph.show import show_graph, show_program
from albireo.graph.spec import check_graph
from albireo.models import load_architecture
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, E, FakeCatalog, V, model_graph, spelled
from compiler.program_runner import ProgramRunner
from in_turn import in_turn
from representatives import REPRESENTATIVES
from step_batches import Work, make_step
from tiny_models import random_weights

DTYPES = ("float32", "bfloat16", "float16")
OPTIONAL = optional_passes()


def compiled(graph: Graph, without: Sequence[str] = ()) -> Program:
    return compile_graph(
        graph,
        FakeCatalog(),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=MAX_POSITIONS,
        passes=passes_without(without),
    )


def steps() -> list[StepInputs]:
    """Two prompts of which only ends matter; one token each, greedy; a chunk without any head; logits alone; some rows
    for their logits, others for their arg max."""
    first = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5])]
    second = [Work([8], 9, [3, 1, 6]), Work([13], 3, [2, 5])]
    third = [Work([1, 2, 3], 4, [2, 5])]
    fourth = [Work([9, 5], 10, [3, 1, 6]), Work([2], 7, [2, 5])]
    fifth = [Work([6], 8, [2, 5, 4]), Work([1, 12, 7, 7], 0, [7])]
    return [
        make_step(first, BLOCK_SIZE, "last", "last"),
        make_step(second, BLOCK_SIZE, "none", "all"),
        make_step(third, BLOCK_SIZE, "none", "none"),
        make_step(fourth, BLOCK_SIZE, "all", "none"),
        replace(
            make_step(fifth, BLOCK_SIZE), logit_rows=rows([4, 0]), top_rows=rows([2, 3, 0]), top_counts=rows([1, 3, 65])
        ),
    ]


def rows(values: list[int]) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.fixture(params=REPRESENTATIVES)
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@in_turn(("model_type", REPRESENTATIVES), ("dtype", DTYPES))
def test_every_pass_keeps_every_bit(model_type: str, dtype: str) -> None:
    graph = model_graph(model_type, dtype)
    weights = random_weights(load_architecture(model_type).tiny, seed=1)
    wanted = outputs_of(graph, weights, dtype)
    seen, before = [], spelled(graph)

    def same(rewritten: Graph, record: PassRecord) -> None:
        nonlocal before
        check_graph(rewritten)
        name = record.name
        seen.append(name)
        if (spelling := spelled(rewritten)) == before:
            return
        assert record.firings, f"{name} changed the graph and does not say so"
        before = spelling
        for i, (got, want) in enumerate(zip(outputs_of(rewritten, weights, dtype), wanted, strict=True)):
            assert got.keys() == want.keys()
            for key in want:
                assert np.array_equal(got[key], want[key]), f"{name} changed {key} of step {i}"

    run_passes(graph, after=same)
    assert len(seen) == len(set(seen)) > 8


@in_turn(("model_type", REPRESENTATIVES), ("dtype", DTYPES[::-1]))
def test_the_program_computes_what_the_graph_says(model_type: str, dtype: str) -> None:
    graph = model_graph(model_type, dtype)
    weights = random_weights(load_architecture(model_type).tiny, seed=2)
    program = compiled(graph)
    check_program(program)
    runner = ProgramRunner(program, weights, ReferenceKV(8, BLOCK_SIZE, program.kv.dtype))
    for step, want in zip(steps(), outputs_of(graph, weights, dtype), strict=True):
        got = runner.run(step)
        assert got.keys() == want.keys()
        for key in want:
            assert np.array_equal(got[key].reshape(want[key].shape), want[key]), key


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tapped", ["nothing", "middle", "embedding", "two layers"])
def test_rows_may_be_taken_anywhere(tapped: str, dtype: str) -> None:
    """Graphs that no architecture has: values of the last layer are read elsewhere, or it reads far back."""

    class Tapped(Decoder):
        def graph(self) -> Graph:
            x = first = self.b.embed(self.b.token_ids, self.weight("table", V, E))
            taps = {}
            for i in range(2):
                middle = self.attention(x, i)
                x = self.mlp(middle, i)
            if tapped == "middle":
                taps = {"tap": middle}
            elif tapped == "embedding":
                taps = {"tap": first}
            elif tapped == "two layers":
                x = self.mlp(x, 2)
            return self.b.finish(**self.head(self.norm(x, "norm")), **taps)

    graph = Tapped(dtype).graph()
    rng = np.random.default_rng(5)
    weights = {name: rng.standard_normal(v.type.dims).astype(np.float32) * 0.3 for name, v in graph.constants.items()}
    program = compiled(graph)
    check_program(program)
    assert {call.rows for call in program.calls if call.family == "gather"} == {"S"}
    runner = ProgramRunner(program, weights, ReferenceKV(8, BLOCK_SIZE, program.kv.dtype))
    for step, want in zip(steps(), outputs_of(graph, weights, dtype), strict=True):
        got = runner.run(step)
        assert got.keys() == want.keys()
        for key in want:
            assert np.array_equal(got[key].reshape(want[key].shape), want[key]), key


def outputs_of(graph: Graph, weights: dict[str, np.ndarray], dtype: str) -> list[dict[str, np.ndarray]]:
    kv = ReferenceKV(8, BLOCK_SIZE, dtype)
    return [interpret(graph, step, weights, kv).outputs for step in steps()]


def test_a_layer_is_seven_calls_the_last_one_gathers_too(model_type: str) -> None:
    program = compiled(model_graph(model_type, "bfloat16"))
    first, rest = ["norm", "qkv_rope_kv", "attention"], ["linear", "norm", "linear", "linear"]
    if model_type.startswith(("gemma2", "gemma3")):  # what is added is normed too
        rest = ["linear", "norm", "norm", "linear", "linear", "norm"]
    if model_type == "gemma4_text":  # v is normed; a layer ends with a factor
        parts = ["slice", "head_norm", "rope", "elementwise"], ["slice", "head_norm", "rope"], ["slice", "head_norm"]
        first = ["norm", "linear", *sorted([*parts[0], *parts[1], *parts[2], "kv_write"]), "attention"]
        rest = ["linear", "norm", "norm", "linear", "linear", "norm", "elementwise"]
    if model_type == "olmo2":  # what is read is rounded alone, and norms of q and k need all their heads
        parts = ["slice", "norm", "rope", "elementwise"], ["slice", "norm", "rope"]
        first = ["elementwise", "linear", *sorted([*parts[0], *parts[1], "slice", "kv_write"]), "attention"]
        rest = ["linear", "norm", "elementwise", "linear", "linear", "norm"]
    gathers = ["gather", "gather"]
    if model_type == "youtu":  # of latents; rows are taken behind attention, before the values of heads are made
        others = ["head_linear", *["join_heads"] * 2, "kv_write", *["linear"] * 4, *["norm"] * 2, *["rope"] * 2]
        first = ["norm", "linear", *sorted(others), "attention"]
        rest = ["head_linear", *rest]
    if model_type in ("gpt_neox", "falcon", "phi", "cohere"):  # attention and FFN side by side
        # of the last layer rows are taken of the residual and of what attention gave, and of a norm that both read; a
        # norm of the FFN's own is of those rows alone
        has_own = model_type == "gpt_neox"
        rest, gathers = ["linear", "linear", "linear"], gathers if has_own else [*gathers, "gather"]
    last = max(call.attrs.get("layer", 0) for call in program.calls)
    if program.top_k:  # experts: of the last layer every row is computed, since pairs are those of all tokens
        experts = ["linear", "norm", "linear", "route", "expert_linear", "expert_linear", "combine"]
        gated = ["linear", "linear", "linear", "gate_rows"]
        shared = {"qwen2_moe": gated, "dots1": ["linear", "linear"]}.get(model_type, [])
        calls = [call for call in program.calls if call.origin.startswith(f"layers.{last}.")]
        assert [call.family for call in calls] == [*first, *experts, *shared]
        assert {call.rows for call in calls if call.family == "expert_linear"} == {"P"}
        gated, down = (call for call in calls if call.family == "expert_linear")
        act = "clamped_swiglu" if model_type == "gpt_oss" else "silu_mul"
        assert (gated.attrs["act"], down.attrs["act"]) == (act, "none")
        assert all("residual" in call.args for call in calls if call.family in ("combine", "gate_rows"))
        return
    for layer, families in ((0, first + rest), (last, [*first, *gathers, *rest])):
        if model_type == "gpt_neox":
            families = ["norm", *families] if layer != last else [*families[:5], "norm", *families[5:]]
        calls = [call for call in program.calls if call.origin.startswith(f"layers.{layer}.")]
        if model_type == "gpt_neox":
            assert [call.family for call in calls] == families
            continue
        if model_type == "gemma4_text" and layer == last:  # whose values are keys, of one head: nothing to slice
            parts = ["linear", "head_norm", "rope", "elementwise"], ["norm", "rope"], ["norm"]
            first = ["norm", "linear", *sorted([*parts[0], *parts[1], *parts[2], "kv_write"]), "attention"]
            families = [*first, *gathers, *rest]
        found, stop = [call.family for call in calls], len(first) - 1
        found[2:stop] = sorted(found[2:stop])
        assert found == families
        assert {call.rows for call in calls[len(first) :]} == {"S" if layer == last else "T"}
    head = [(call.family, call.rows) for call in program.calls if call.origin.startswith("head")]
    capped = [("elementwise", "R")] if model_type in ("gemma2", "gemma4_text") else []
    if model_type == "phi":  # whose head has a bias
        assert sorted(head) == [("linear", "G"), ("linear", "R"), ("norm", "G"), ("norm", "R"), ("top", "G")]
        return
    assert sorted(head) == [*capped, ("head_top", "G"), ("linear", "R"), ("norm", "G"), ("norm", "R")]


def test_the_graph_is_not_changed_and_the_program_is_always_the_same() -> None:
    graph = Decoder(layers=3, bias="kd").graph()
    before = show_graph(graph, fold=False)
    first, second = compiled(graph), compiled(graph)
    assert show_graph(graph, fold=False) == before
    assert first == second and show_program(first) == show_program(second)


def test_residual_and_compute_types() -> None:
    program = compiled(Decoder("float16", layers=2).graph())
    dtypes = {name: buffer.dtype for name, buffer in program.buffers.items()}
    assert dtypes["x"] == "float32" and dtypes["h"] == dtypes["q"] == dtypes["a"] == dtypes["m"] == "float16"
    assert dtypes["logits"] == dtypes["top_values"] == "float32" and dtypes["top_ids"] == "int32"
    residual_adds = [call for call in program.calls if "residual" in call.args]
    assert [call.args["out"] for call in residual_adds] == ["x", "x", "x_S", "x_S"]
    assert all(call.args["residual"] == call.args["out"] for call in residual_adds)


def test_what_could_not_be_fused_runs_as_calls_of_its_own() -> None:
    """A tap on the gate keeps it from being merged with its up: three elementwise calls more."""

    class Tapped(Decoder):
        def act(self, gate, up):
            self.tap = self.b.gather_rows(gate, self.b.logit_rows)
            return super().act(gate, up)

        def head(self, y):
            return super().head(y) | {"tap": self.tap}

    program = compiled(Tapped().graph())
    check_program(program)
    kinds = [call.attrs["kind"] for call in program.calls if call.family == "elementwise"]
    assert kinds == ["silu", "mul", "cast"]
    (refusal, *_) = next(record for record in program.report if record.name == "merge_gate_up").refusals
    assert "has 2 users" in refusal.reason


@in_turn(("model_type", REPRESENTATIVES), ("third", range(3)))
def test_each_optional_pass_can_be_left_out(model_type: str, third: int) -> None:
    """The program without it computes the same; without any, each op is a call of its own."""
    graph = model_graph(model_type, "bfloat16")
    weights = random_weights(load_architecture(model_type).tiny, seed=3)
    wanted = outputs_of(graph, weights, "bfloat16")
    fused = len(compiled(graph).calls)
    ran: list[Program] = []
    for names in [*((name,) for name in OPTIONAL[third::3]), OPTIONAL]:
        program = compiled(graph, without=names)
        check_program(program)
        assert not {record.name for record in program.report} & set(names)
        # those without passes that have nothing to do in this model are one program
        if (calls := replace(program, report=())) in ran:
            continue
        ran.append(calls)
        runner = ProgramRunner(program, weights, ReferenceKV(8, BLOCK_SIZE, program.kv.dtype))
        for step, want in zip(steps(), wanted, strict=True):
            got = runner.run(step)
            for key in want:
                assert np.array_equal(got[key].reshape(want[key].shape), want[key]), f"{key} without {names}"
    families = [call.family for call in program.calls]
    assert not {"qkv_rope_kv", "head_top"} & set(families) and {"rope", "kv_write", "top"} <= set(families)
    assert len(program.calls) > {"olmo2": 1.2, "gemma4_text": 1.2, "youtu": 1.5}.get(model_type, 1.8) * fused
    assert not any("residual" in call.args or call.attrs.get("act", "none") != "none" for call in program.calls)


def test_names_of_passes() -> None:
    assert len(passes_without(["fuse_head"])) == len(PASSES) - 1
    assert passes_without([]) == PASSES
    assert set(OBLIGATORY) < {pass_name(run) for run in PASSES}
    with pytest.raises(
        ConfigError, match=r"'fuse_everything' names no pass; choose among fold_scale, merge_qkv, .*fuse_head"
    ):
        passes_without(["fuse_head", "fuse_everything"])
    with pytest.raises(ConfigError, match="fuse_gather: this pass cannot be left out: nothing else gives a gather"):
        passes_without(["fuse_gather"])


@pytest.fixture
def without_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel does sigmoids, for once: there is no kind of which that is so."""
    monkeypatch.setattr(single_ops, "KINDS", tuple(kind for kind in KINDS if kind != "sigmoid"))


@pytest.mark.usefixtures("without_sigmoid")
def test_an_op_that_no_kernel_does_is_named_with_the_reasons() -> None:
    class Tapped(Decoder):
        def act(self, gate, up):
            self.tap = gate
            return self.b.cast(self.b.mul(self.b.unary(gate, "sigmoid"), up), self.dtype)

        def head(self, y):
            return super().head(y) | {"tap": self.tap}

    with pytest.raises(
        UnsupportedModel,
        match=r"layers\.0\.mlp: unary .* merge_gate_up: %\d+ is an output.*single_ops: no kernel does sigmoid; known:",
    ):
        compiled(Tapped().graph())


@pytest.mark.usefixtures("without_sigmoid")
def test_an_op_without_family_is_named() -> None:
    class Squashed(Decoder):
        def mlp(self, x, i):
            return super().mlp(self.b.unary(x, "sigmoid"), i)

    with pytest.raises(
        UnsupportedModel, match=r"layers\.0\.mlp: unary %\d+ cannot be compiled: .*no kernel does sigmoid"
    ):
        compiled(Squashed().graph())


@pytest.mark.parametrize("changes", [{"T": 0}, {"X": 1}, {"S": 8}])
def test_maxima_are_checked(changes: dict[str, int]) -> None:
    with pytest.raises(InvariantError, match="maxima"):
        compile_graph(Decoder().graph(), FakeCatalog(), maxima=MAXIMA | changes, block_size=BLOCK_SIZE, max_positions=8)


def test_states_are_numbered_in_order() -> None:
    graph = model_graph("qwen3_5_text", "bfloat16")
    assert [node.op for node in graph.recurrent] == ["causal_conv", "gated_delta_rule"] * 2
    assert compiled(graph).states.shapes == ((3, 128), (4, 12, 20)) * 2
    graph.recurrent[1].attrs["state"] = 0
    with pytest.raises(InvariantError, match=r"states of sequences are numbered \[0, 0, 2, 3\]"):
        check_graph(graph)
