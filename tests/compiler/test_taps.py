"""Hidden states that leave a model: those there are, to the bit, of every row; and everything else as it was."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.passes import taps
from albireo.compiler.pipeline import compile_graph
from albireo.compiler.rewrite import copy_graph
from albireo.errors import UnsupportedModel
from albireo.graph.program_checks import check_program
from albireo.graph.spec import check_graph
from albireo.models import load_architecture
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog, model_graph
from compiler.program_runner import ProgramRunner
from compiler.test_hidden_states import SCALED, STEP
from representatives import REPRESENTATIVES
from tiny_models import random_weights

#: Whose layers read their residual stream without a norm, or whose blocks read one norm.
OTHERS = ("olmo2",)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_they_are_what_layers_read_and_the_last_norm_gave(name: str) -> None:
    graph = model_graph(name, "bfloat16")
    weights = random_weights(load_architecture(name).tiny, seed=2)
    whole = interpret(graph, STEP, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16"), keep=True)
    tapped, wanted = copy_graph(graph), [taps.FINAL] if name in OTHERS else [1, taps.FINAL]
    taps.run(tapped, wanted)
    check_graph(tapped)
    got = interpret(tapped, STEP, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16"))
    assert all(np.array_equal(got[key], whole[key]) for key in whole.outputs)
    last = [node for node in graph.nodes if node.op == "rms_norm"][-1]
    final = whole.values[last.output.name]
    if name in SCALED:
        tiny = load_architecture(name).tiny
        final = final * np.float32(1 / tiny["logit_scale"])
    np.testing.assert_allclose(got[f"tap{len(wanted) - 1}"], final, rtol=3e-7)
    if name not in OTHERS:
        first = next(n for n in graph.nodes if n.op == "rms_norm" and n.origin.startswith("layers.1."))
        assert np.array_equal(got["tap0"], whole.values[first.inputs["x"].name])
    options = {"maxima": {**MAXIMA, "R": 32}, "block_size": BLOCK_SIZE, "max_positions": MAX_POSITIONS}
    plain, program = (compile_graph(each, FakeCatalog(), **options) for each in (graph, tapped))  # type: ignore[arg-type]
    check_program(program)
    assert program.constants == plain.constants
    found = ProgramRunner(program, weights, ReferenceKV(8, BLOCK_SIZE, "bfloat16")).run(STEP)
    for key in got.outputs:
        assert np.array_equal(found[key].reshape(got[key].shape), got[key]), key


@pytest.mark.parametrize("name", OTHERS)
def test_layers_without_a_norm_before_them_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModel, match="what layer 1 reads is not to be found"):
        taps.run(model_graph(name, "float32"), [1])
