"""Models with experts through CudaModel: padding, recordings, weights in few bits. What all do is in test_model.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.cuda.catalog import CudaCatalog
from albireo.backends.cuda.model import CudaModel
from albireo.backends.cuda.open import open_model
from albireo.backends.cuda.scratch import Scratch
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.compiler.passes import narrow_activations, widen_activations
from albireo.compiler.pipeline import compile_graph, run_passes
from albireo.errors import InvariantError
from albireo.models import build_graph, load_architecture
from albireo.models.checkpoint.experts_of_pictures import OF_PICTURES, OF_TEXT
from albireo.models.config_keys import parse_config
from backends.cpu.harness import assert_same_bits
from backends.cpu.test_pack import Stored
from backends.cuda.test_model import (
    CPU,
    MANY,
    MAX_POSITIONS,
    MAXIMA,
    NUM_BLOCKS,
    Numbers,
    Recorder,
    graph_of,
    model_of,
    steps,
    weights_of,
)
from step_batches import Work, make_step
from tiny_models import weights_read
from variants import tiny_of


def poisoned(model: CudaModel) -> CudaModel:
    """Every activation is NaN until it is written."""
    model.placed.arena.fill_(0xFF)
    return model


@pytest.fixture
def quiet() -> Iterator[None]:
    """numpy says nothing of what becomes of rows nobody wrote."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.usefixtures("quiet")
def test_padding_reads_no_expert_and_spoils_nothing() -> None:
    """Three sequences in a step of four, recorded and replayed: rows of pairs that nobody wrote are NaN."""
    recorder = Recorder()
    model = poisoned(model_of("mixtral", "bfloat16", recorder=recorder))
    for step in steps("none", "last", MANY)[:2]:
        model.run(step)
        assert model.run(step).top_values.max() < np.inf, "a step with prompts, padded to 16 tokens"
    decode = steps("none", "last", MANY)[2]
    recorder.num_recorded = recorder.num_replayed = 0
    together = poisoned(model).run(decode)
    ids, values = together.top_ids.copy(), together.top_values.copy()
    lists = model.placed.scratch.expert_list
    counts = lists.items[4:].view(-1, 4)[: int(lists.items[0]), 2]
    assert int(counts.sum()) == 3 * lists.top_k, "pairs of three tokens, not of four"
    assert not lists.counters.any() and not model.placed.scratch.linear[:4096].any()
    again = poisoned(model).run(decode)
    assert (recorder.num_recorded, recorder.num_replayed) == (1, 1)
    assert np.array_equal(again.top_ids, ids)
    assert_same_bits(again.top_values, values, "the same step again")
    plan = [([4, 1], 9), ([5, 11, 3], 9), ([7, 2, 9], 11)]
    for index, (blocks, position) in enumerate(plan):
        token = int(decode.token_ids[index])
        alone = poisoned(model).run(make_step([Work([token], position, blocks)], 8, "none", "last"))
        assert np.array_equal(alone.top_ids[0], ids[index])
        assert_same_bits(alone.top_values[0], values[index], f"sequence {index} alone")


def test_a_prompt_in_pieces_has_the_bits_of_one_at_once() -> None:
    model = model_of("mixtral", "bfloat16")
    prompt = [int(t) for t in np.random.default_rng(3).integers(0, 90, 15)]
    whole = model.run(make_step([Work(prompt, 0, [4, 6])], 8)).logits.copy()
    for first in (1, 9):
        model.run(make_step([Work(prompt[:first], 0, [5, 3])], 8))
        rest = model.run(make_step([Work(prompt[first:], first, [5, 3])], 8)).logits
        assert_same_bits(rest, whole[first:], f"from token {first} on")


@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-6), ("bfloat16", 0.02)])
def test_two_choices_of_a_layer(dtype: str, most: float) -> None:
    """Experts of ERNIE 4.5 VL: of text and of pictures, of which each token has numbers to multiply them by."""
    config = tiny_of("ernie4_5_moe") | {"moe_intermediate_size": [28, 12]}
    graph = build_graph(parse_config(config, load_architecture("ernie4_5_moe").rules).with_dtype(dtype), MAX_POSITIONS)
    program = compile_graph(graph, CudaCatalog(90), maxima=MAXIMA, block_size=8, max_positions=MAX_POSITIONS)
    weights = {name: round_to(value, dtype) for name, value in weights_read(graph, 3).items()}
    tables = np.arange(125)[:, None] % 2 * np.ones(3, np.float32)
    weights |= {OF_TEXT: 1 - tables, OF_PICTURES: tables}
    stored = Numbers({name: Stored(value, dtype) for name, value in weights.items()})
    model = open_model(program, stored, num_blocks=NUM_BLOCKS, max_positions=MAX_POSITIONS, device=CPU)
    kv = ReferenceKV(NUM_BLOCKS, 8, dtype)
    for step in steps():
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        assert np.linalg.norm(got - wanted) <= most * np.linalg.norm(wanted)


@pytest.mark.parametrize(
    ("name", "encoding", "capability", "most"),
    [
        ("qwen3_moe", "fp8", 90, 0.1),
        ("mixtral", "fp8", 80, 0.01),
        ("mixtral", "int8", 80, 0.03),
        ("mixtral", "int4.g32", 90, 0.03),
        ("gpt_oss", "fp4.g32", 90, 0.03),
        ("qwen3_moe", "int8.g32", 80, 0.03),
        ("mixtral", "int4p.g64", 80, 0.03),
    ],
)
def test_experts_in_few_bits(name: str, encoding: str, capability: int, most: float) -> None:
    """Sums are the same; a bit before a rounding turns a code here and there, and now and then the choice of an expert:
    such a row, and those that see it, are others."""
    model, weights = model_of(name, "bfloat16", encoding, capability=capability), weights_of(name, "bfloat16")
    packings = {model.program.constants[call.args["weight"]].packing for call in experts_of(model)}
    assert packings == {f"row.{encoding}"}
    able = [widen_activations.run] if capability == 80 else [widen_activations.run, narrow_activations.run]
    graph, _ = run_passes(graph_of(name, "bfloat16", encoding), able)
    kv, errors = ReferenceKV(NUM_BLOCKS, 8, "bfloat16"), []
    for step in steps()[:2]:
        got, wanted = model.run(step).logits, interpret(graph, step, weights, kv)["logits"]
        errors += (np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)).tolist()
    assert np.quantile(errors, 0.75) <= most


def experts_of(model: CudaModel) -> list:  # type: ignore[type-arg]
    return [call for call in model.program.calls if call.family == "expert_linear"]


def test_ids_of_another_route_than_the_one_before_are_refused() -> None:
    """All layers share one list, which the last route made."""
    program = model_of("mixtral", "float32").program
    calls = tuple(
        replace(call, args=call.args | {"ids": "other"}) if call.family == "expert_linear" else call
        for call in program.calls
    )
    with pytest.raises(InvariantError, match="reads other; the route before it made"):
        Scratch.of(replace(program, calls=calls), {**program.maxima, "B": 4}, MAX_POSITIONS, CPU)
