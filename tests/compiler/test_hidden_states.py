"""The graph that gives hidden states: those of the other one, to the bit, and everything else as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.passes import choose_precision, hidden_states
from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.compiler.rewrite import copy_graph
from albireo.graph.node import Graph, Value
from albireo.graph.program_checks import check_program
from albireo.graph.spec import check_graph
from albireo.models import load_architecture
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, Decoder, E, FakeCatalog, V, model_graph
from compiler.program_runner import ProgramRunner
from in_turn import in_turn
from representatives import REPRESENTATIVES
from step_batches import Work, make_step
from tiny_models import random_weights

#: Whose logits are multiplied by a number that is in the weights of the final norm.
SCALED = ("granite", "cohere")
STEP = make_step(
    [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5])], BLOCK_SIZE, "all", "last"
)


def hidden_graph(graph: Graph) -> Graph:
    copy = copy_graph(graph)
    record = hidden_states.run(copy)
    assert len(record.firings) == 1 and not record.refusals
    check_graph(copy)
    return copy


@in_turn(("precision", [None, "int8"]), ("dtype", ["float32", "bfloat16"]), ("name", REPRESENTATIVES))
def test_they_are_what_the_final_norm_gave(name: str, dtype: str, precision: str | None) -> None:
    graph = model_graph(name, dtype)
    if precision is not None:
        choose_precision.run(graph, lambda source, role: precision)
    weights = random_weights(load_architecture(name).tiny, seed=1)
    whole = interpret(graph, STEP, weights, ReferenceKV(8, BLOCK_SIZE, dtype), keep=True)
    norm = [node for node in graph.nodes if node.op == "rms_norm"][-1]
    got = interpret(hidden_graph(graph), STEP, weights, ReferenceKV(8, BLOCK_SIZE, dtype))
    assert got.outputs.keys() == {"hidden", "top_ids", "top_values"}
    wanted = whole.values[norm.output.name][STEP.logit_rows]
    if name in SCALED:  # what logits are divided by is in the norm's weights, and is taken out again
        tiny = load_architecture(name).tiny
        factor = tiny["logits_scaling"] if name == "granite" else 1 / tiny["logit_scale"]
        np.testing.assert_allclose(got["hidden"], wanted * factor, rtol=3e-7)
    else:
        assert np.array_equal(got["hidden"], wanted)
    assert got["hidden"].dtype == np.float32
    for key in ("top_ids", "top_values"):
        assert np.array_equal(got[key], whole[key])


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_passes_keep_every_bit_and_the_program_has_the_same_constants(name: str) -> None:
    graph = model_graph(name, "bfloat16")
    weights = random_weights(load_architecture(name).tiny, seed=2)
    changed = hidden_graph(graph)
    wanted = interpret(changed, STEP, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16"))

    def same(rewritten: Graph, record: object) -> None:
        got = interpret(rewritten, STEP, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16"))
        assert all(np.array_equal(got[key], wanted[key]) for key in wanted.outputs), record

    run_passes(changed, after=same)
    options: Any = {"maxima": {**MAXIMA, "R": 32}, "block_size": BLOCK_SIZE, "max_positions": MAX_POSITIONS}
    whole, program = (compile_graph(each, FakeCatalog(), **options) for each in (graph, changed))
    check_program(program)
    assert program.constants == whole.constants and program.outputs.keys() == wanted.outputs.keys()
    extra = ["elementwise"] if name in SCALED else []
    assert [call.family for call in program.calls if call.rows == "R"] == ["norm", *extra]
    got = ProgramRunner(program, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16")).run(STEP)
    assert np.array_equal(got["hidden"].reshape(wanted["hidden"].shape), wanted["hidden"])


class Odd(Decoder):
    """Heads in which hidden states cannot be told."""

    kind = ""

    def head(self, y: Value) -> dict[str, Value]:
        outputs, b = super().head(y), self.b
        weight = self.weight("table", V, E)
        if self.kind == "scaled":
            outputs["logits"] = b.scale(outputs["logits"], 2.0)
        elif self.kind == "no gather":
            outputs["logits"] = b.linear(y, weight)
        elif self.kind == "no norm":
            outputs["logits"] = b.linear(b.gather_rows(b.cast(b.unary(y, "tanh"), self.dtype), b.logit_rows), weight)
        return outputs


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("scaled", "not those of a linear"),
        ("no gather", "does not multiply gathered rows"),
        ("no norm", "what a norm gave"),
    ],
)
def test_other_heads_are_left_alone_with_the_reason(kind: str, words: str) -> None:
    odd = Odd("float32")
    odd.kind = kind
    graph = odd.graph()
    before = [str(node) for node in graph.nodes]
    record = hidden_states.run(graph)
    assert not record.firings and words in record.refusals[0].reason
    assert [str(node) for node in graph.nodes] == before and "logits" in graph.outputs
