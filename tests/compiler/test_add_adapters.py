"""The pass that adds adapters: what it says is W + BA, other rows keep their bits, and constants stay as they are."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.compiler.passes import choose_precision
from albireo.compiler.pipeline import PASSES, adapter_passes, compile_graph, passes_without, run_passes
from albireo.errors import InvariantError
from albireo.graph.node import Graph
from albireo.graph.program_checks import check_program
from albireo.graph.spec import check_graph
from albireo.models import load_architecture
from compiler.examples import BLOCK_SIZE, MAX_POSITIONS, MAXIMA, FakeCatalog, model_graph, spelled
from in_turn import in_turn
from representatives import LATENT, REPRESENTATIVES
from step_batches import Work, make_step
from tiny_adapters import adapter_tensors
from tiny_layer_norm import LAYER_NORMS
from tiny_models import random_weights

MAX_RANK = 4
#: Models with a LayerNorm join matrices, or take rows of them in another order, of which there are no adapters.
ADAPTABLE = sorted(set(REPRESENTATIVES) - set(LAYER_NORMS) | {"opt", "starcoder2"})
WORKS = [Work([5, 9, 2, 7, 1, 3, 3, 8, 4], 0, [3, 1, 6]), Work([11, 4, 6], 0, [2, 5]), Work([7, 8], 0, [4])]
#: Rows of the sequences: the second has none.
SLOTS = np.array([1] * 9 + [-1] * 3 + [0] * 2, np.int32)
STEP = replace(make_step(WORKS, BLOCK_SIZE, "all", "last"), adapter_slots=SLOTS)
_REFUSED = re.compile("head|router|holds the rows of several")
Adapters = list[dict[str, tuple[Any, Any]]]


def adapters_of(name: str) -> Adapters:
    """The first changes everything, the second attention alone."""
    config, found = load_architecture(name).tiny, []
    for seed, targets in ((1, None), (2, ("q_proj", "v_proj", "o_proj"))):
        tensors = adapter_tensors(config, seed, 3, **({} if targets is None else {"targets": targets}))
        names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
        pairs = {each: tuple(tensors[f"base_model.model.{each}.lora_{side}.weight"] for side in "AB") for each in names}
        found.append({each: (a, 2 * b) for each, (a, b) in pairs.items()})
    return found


def run(graph: Graph, weights: Any, adapters: Adapters) -> Any:
    return interpret(graph, STEP, weights, ReferenceKV(8, BLOCK_SIZE, "float32"), adapters=adapters)


@pytest.mark.parametrize("name", ADAPTABLE)
def test_it_says_what_merged_weights_say(name: str) -> None:
    graph, weights = model_graph(name, "float32"), random_weights(load_architecture(name).tiny, seed=1)
    adapters = adapters_of(name)
    got = run(run_passes(graph, adapter_passes(PASSES, MAX_RANK))[0], weights, adapters)
    plain = run(graph, weights, [])
    for slot, rows in ((1, range(9)), (-1, range(9, 12)), (0, range(12, 14))):
        merged = dict(weights)
        for module, (a, b) in adapters[slot].items() if slot >= 0 else ():
            merged[f"{module}.weight"] = weights[f"{module}.weight"] + b @ a
        wanted = run(graph, merged, [])["logits"][list(rows)]
        found = got["logits"][list(rows)]
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
        is_same = np.array_equal(found, plain["logits"][list(rows)])
        assert is_same == (slot < 0)


@in_turn(
    ("without", [(), ("merge_qkv",), ("merge_gate_up", "fuse_qkv_rope_kv"), ("last_layer_rows",)]),
    ("precision", [None, "int8"]),
    ("name", REPRESENTATIVES),
)
def test_passes_behind_it_keep_every_bit(name: str, precision: str | None, without: tuple[str, ...]) -> None:
    graph, weights = model_graph(name, "float32"), random_weights(load_architecture(name).tiny, seed=2)
    if precision is not None:
        choose_precision.run(graph, lambda source, role: precision)
    adapters, wanted, before = adapters_of(name), None, None

    def same(rewritten: Graph, record: Any) -> None:
        nonlocal wanted, before
        check_graph(rewritten)
        if (spelling := spelled(rewritten)) == before:  # nothing in this model for the pass
            return
        before = spelling
        if record.name == "add_adapters":
            assert record.firings and all(_REFUSED.search(each.reason) for each in record.refusals)
            wanted = run(rewritten, weights, adapters)
        elif wanted is not None:
            got = run(rewritten, weights, adapters)
            assert all(np.array_equal(got[key], wanted[key]) for key in wanted.outputs), record

    run_passes(graph, adapter_passes(passes_without(without), MAX_RANK), after=same)
    assert wanted is not None


@pytest.mark.parametrize("name", sorted(set(REPRESENTATIVES) - set(LAYER_NORMS) - set(LATENT)))
def test_both_programs_have_the_same_constants_and_fusions(name: str) -> None:
    options: Any = {"maxima": MAXIMA, "block_size": BLOCK_SIZE, "max_positions": MAX_POSITIONS}
    graph = model_graph(name, "bfloat16")
    plain = compile_graph(graph, FakeCatalog(), **options)
    program = compile_graph(graph, FakeCatalog(), passes=adapter_passes(PASSES, MAX_RANK), **options)
    check_program(program)
    assert program.constants == plain.constants and program.kv == plain.kv
    rest = [call.family for call in program.calls if call.family != "adapter"]
    assert rest == [call.family for call in plain.calls]
    modules = [name for call in program.calls if call.family == "adapter" for name, _, _ in call.attrs["modules"]]
    wanted = {key.split(".lora_")[0] for key in adapter_tensors(load_architecture(name).tiny, 1, 1)}
    assert len(modules) == len(set(modules))
    assert {f"base_model.model.{module}" for module in modules if not module.endswith("_gate")} == wanted
    # a program of its own: nothing of it is in the other
    assert not any("modules" in call.attrs or "low" in call.args for call in plain.calls)


def test_parts_that_are_not_all_of_a_linear_are_refused() -> None:
    graph, _ = run_passes(model_graph("llama", "float32"), adapter_passes(PASSES, MAX_RANK)[:8])
    linear = next(node for node in graph.nodes if node.op == "linear" and "modules" in node.attrs)
    (name, first, end), *rest = linear.attrs["modules"]
    for wrong in ([], [(name, first, end - 1), *rest], [(name, 1, end), *rest], [*rest]):
        linear.attrs["modules"] = tuple(wrong)
        with pytest.raises(InvariantError, match="modules"):
            check_graph(graph)
