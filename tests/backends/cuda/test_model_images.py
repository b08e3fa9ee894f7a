"""Steps with pictures on CudaModel: rows in place of embeddings, rotations of their own, rows that see to the end of a
picture; against the interpreter of the graph. And which of them are recorded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.rope_table import rope_table
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes import deepstack
from albireo.compiler.pipeline import compile_graph
from albireo.errors import InvariantError
from albireo.graph.node import Graph
from albireo.graph.ops import RopeSpec
from backends.cpu.harness import F32, assert_same_bits
from backends.cpu.test_pack import Stored
from backends.cuda.test_model import (
    CPU,
    MAX_POSITIONS,
    MAXIMA,
    NUM_BLOCKS,
    Numbers,
    Recorder,
    graph_of,
    steps,
    weights_of,
)
from step_batches import Work, make_step
from variants import tiny_of


def model_of(name: str, dtype: str, recorder: Recorder | None = None, has_axes: bool = False) -> CudaModel:
    program = compile_graph(
        graph_of(name, dtype), CudaCatalog(90), maxima=MAXIMA, block_size=8, max_positions=MAX_POSITIONS
    )
    weights = Numbers({key: Stored(value, dtype) for key, value in weights_of(name, dtype).items()})
    return open_model(
        program,
        weights,
        num_blocks=NUM_BLOCKS,
        max_positions=MAX_POSITIONS,
        device=CPU,
        has_axes=has_axes,
        recorder=recorder,
    )


def rows(count: int, width: int, seed: int) -> F32:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def with_picture(step: StepInputs, width: int, first: int, count: int, num_deep: int = 0) -> StepInputs:
    """Tokens first to first + count of a step are rows of a picture, in another order than they come."""
    of_token = np.full(step.num_tokens, -1, np.int32)
    of_token[first : first + count] = np.arange(count)[::-1]
    return replace(step, given=tuple(rows(count, width, seed) for seed in range(1 + num_deep)), given_rows=of_token)


def pictures(name: str) -> list[StepInputs]:
    """Two prompts and what goes on with them: rows, rotations and ends; and a step that brings none."""
    width, dim = tiny_of(name)["hidden_size"], graph_head_dim(name)
    first, second, third = steps()
    ends = np.zeros(first.num_tokens, np.int32)
    ends[2:6] = 6
    given = replace(with_picture(first, width, 2, 4), row_ends=ends)
    if len({node.attrs["head_dim"] for node in graph_of(name, "float32").nodes if node.op == "attention"}) > 1:
        return [given, second, third, steps()[2]]  # of rotations there is one width
    table = rope_table(
        RopeSpec(tuple(0.3 / (1 + i) for i in range(dim // 2)), 1.0), np.arange(second.num_tokens, dtype=np.int32)
    )
    turned = replace(second, rope_rows=np.ascontiguousarray(np.concatenate([table[..., 0], table[..., 1]], axis=1)))
    return [given, turned, replace(third, rope_positions=third.positions + np.int32(3)), steps()[2]]


def graph_head_dim(name: str) -> int:
    return next(int(node.attrs["head_dim"]) for node in graph_of(name, "float32").nodes if node.op == "attention")


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in gelu's tanh form, where it gives the limit
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("qwen3", "bfloat16"),
        ("gemma3_text", "float32"),
        ("gemma4_text", "bfloat16"),
        ("gemma4_text, embeddings of layers", "float32"),
        pytest.param("qwen3", "float32", marks=pytest.mark.thorough),
        pytest.param("gemma3_text", "bfloat16", marks=pytest.mark.thorough),
        pytest.param("gemma4_text", "float32", marks=pytest.mark.thorough),
        pytest.param("gemma4_text, embeddings of layers", "bfloat16", marks=pytest.mark.thorough),
    ],
)
def test_steps_with_pictures_are_what_their_graph_says(name: str, dtype: str) -> None:
    """As near as roundings allow, of which norms inside linears have others."""
    model, weights = model_of(name, dtype), weights_of(name, dtype)
    rounded, exact = ReferenceKV(NUM_BLOCKS, 8, dtype), ReferenceKV(NUM_BLOCKS, 8)
    plain, plain_model = ReferenceKV(NUM_BLOCKS, 8, dtype), model_of(name, dtype)
    ours, ideal, noise = [], [], []
    for step in pictures(name):
        ours.append(model.run(step).logits.copy())
        ideal.append(interpret(graph_of(name, dtype), step, weights, rounded)["logits"])
        noise.append(ideal[-1] - interpret(graph_of(name, "float32"), step, weights, exact)["logits"])
    got, want = np.concatenate(ours), np.concatenate(ideal)
    off = np.linalg.norm(got - want) / np.linalg.norm(want)
    rounding = float(np.linalg.norm(np.concatenate(noise)) / np.linalg.norm(want))
    assert off <= (3e-6 if dtype == "float32" else 1.4 * rounding)
    for step, with_rows in zip(steps(), ours, strict=False):
        without = interpret(graph_of(name, dtype), step, weights, plain)["logits"]
        assert np.linalg.norm(without - with_rows) > 0.02 * np.linalg.norm(without), "what it brings is read"
        plain_model.run(step)


def test_only_what_a_recording_has_a_place_for_is_recorded() -> None:
    """Tokens behind a picture are turned by positions of their own in the recorded step; rows of one are launched."""
    recorder = Recorder()
    model, plain = model_of("qwen3", "bfloat16", recorder, has_axes=True), model_of("qwen3", "bfloat16")
    width, counts = tiny_of("qwen3")["hidden_size"], []
    prompt = make_step([Work(list(range(3, 12)), 0, [7, 2])], 8, "none", "last")
    given = [with_picture(prompt, width, 3, 4)] * 2
    for position, shift in ((9, -2), (10, -2), (11, 0)):
        step = make_step([Work([5], position, [7, 2])], 8, "none", "last")
        given.append(replace(step, rope_positions=step.positions + np.int32(shift)) if shift else step)
    found = []
    for step in given:
        got = model.run(step).top_values
        assert_same_bits(got, plain.run(step).top_values, f"step {len(counts)}")
        found.append(float(got[0, 0]))
        counts.append((recorder.num_recorded, recorder.num_replayed))
    assert counts == [(0, 0), (0, 0), (1, 0), (1, 1), (1, 2)]
    unturned = plain.run(replace(given[3], rope_positions=None)).top_values
    assert float(unturned[0, 0]) != found[3], "they are turned by what the step says"


def deep(graph: Graph, *layers: int) -> Graph:
    deepstack.run(graph, layers)
    return graph


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_behind_further_layers(dtype: str) -> None:
    """A second program of the same weights and cache: what its graph says; tokens that see nothing of a picture have
    the bits that the first program gives them."""
    model, weights = model_of("qwen3", dtype), weights_of("qwen3", dtype)
    graph = deep(graph_of("qwen3", dtype), 0)
    program = compile_graph(graph, CudaCatalog(90), maxima=MAXIMA, block_size=8, max_positions=MAX_POSITIONS)
    families = [call.family for call in program.calls]
    assert ("add_given_norm" if dtype == "bfloat16" else "add_given") in families
    seeing, width = model.sharing(program), tiny_of("qwen3")["hidden_size"]
    first = steps()[0]
    step = with_picture(first, width, 3, 3, num_deep=1)
    got = seeing.run(step).logits.copy()
    wanted = interpret(graph, step, weights, ReferenceKV(NUM_BLOCKS, 8, dtype))["logits"]
    best = interpret(deep(graph_of("qwen3", "float32"), 0), step, weights, ReferenceKV(NUM_BLOCKS, 8))["logits"]
    limit = 3e-6 * np.linalg.norm(wanted) if dtype == "float32" else 1.5 * np.linalg.norm(wanted - best)
    assert np.linalg.norm(got - wanted) <= limit
    plain = model.run(first).logits
    is_before = np.r_[0:3, 7:9]  # of a sequence nothing of the picture, or all of it behind
    assert_same_bits(got[is_before], plain[is_before], "rows that see nothing of the picture")
    assert np.abs(got - plain)[3:7].max() > 1e-2
    with pytest.raises(InvariantError, match="runs a step that brings none"):
        seeing.run(first)
