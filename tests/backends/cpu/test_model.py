"""CpuModel: compiled tiny models of every architecture against the interpreter of their graphs, at every level."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest

from albireo import _native
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.kv_memory import KVMemory
from albireo.backends.cpu.machine import LEVELS, isa_levels
from albireo.backends.cpu.model import CpuModel
from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.backends.reference.rounding import round_to
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.pipeline import compile_graph
from albireo.dtypes import COMPUTE_DTYPES
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models import build_graph
from albireo.models.config_keys import parse_config
from backends.cpu.harness import F32, assert_same_bits, pool
from backends.cpu.test_pack import Stored, Weights
from in_turn import in_turn
from representatives import ALL_REPRESENTATIVES
from step_batches import Rows, Work, make_step
from tiny_models import random_weights
from variants import architecture_of, tiny_of

MAXIMA = {"T": 48, "R": 48, "G": 6}
MAX_POSITIONS = 64
NUM_BLOCKS = 12


def graph_of(name: str, dtype: str) -> Graph:
    config = parse_config(tiny_of(name), architecture_of(name).rules)
    return build_graph(config.with_dtype(dtype), MAX_POSITIONS)


#: Weights with which no token is between two experts so nearly that rounding decides, in any type.
SEEDS = {"dots1": 25, "mixtral": 2, "qwen3_moe": 8}


def weights_of(name: str, dtype: str) -> dict[str, F32]:
    seed = SEEDS.get(name, 1)
    return {key: round_to(value, dtype) for key, value in random_weights(tiny_of(name), seed).items()}


@functools.lru_cache(maxsize=1)
def program_of(name: str, dtype: str, level: str, block_size: int) -> Program:
    return compile_graph(
        graph_of(name, dtype),
        CpuCatalog(LEVELS[LEVELS.index(level) :]),
        maxima=MAXIMA,
        block_size=block_size,
        max_positions=MAX_POSITIONS,
    )


def model_of(name: str, dtype: str, level: str, threads: int = 1, block_size: int = 8) -> CpuModel:
    """A compiled model, with the kernels of a level and below."""
    program = program_of(name, dtype, level, block_size)
    weights = Weights({key: Stored(value, dtype) for key, value in weights_of(name, dtype).items()})
    return CpuModel(program, weights, pool(threads), NUM_BLOCKS, num_state_slots=4)


def steps(logits: Rows = "all", top: Rows = "last") -> list[StepInputs]:
    """Two prompts; then one goes on, the other has a token and a third begins; then all have a token."""
    first, second, third = [7, 2, 9], [4, 1], [5, 11, 3]

    def tokens(count: int, seed: int) -> list[int]:
        return [int(t) for t in np.random.default_rng(seed).integers(0, 90, count)]

    plans: list[Sequence[Work]] = [
        [Work(tokens(10, 1), 0, first, 2), Work(tokens(9, 2), 0, second, 0)],
        [Work(tokens(9, 3), 10, first, 2), Work(tokens(1, 4), 9, second, 0), Work(tokens(17, 5), 0, third, 3)],
        [Work(tokens(1, 6), 10, second, 0), Work(tokens(1, 7), 17, third, 3), Work(tokens(1, 8), 19, first, 2)],
    ]
    return [make_step(plan, 8, logits, top) for plan in plans]


@functools.cache
def logits_of(name: str, dtype: str) -> tuple[F32, F32]:
    """What the interpreter gives for all steps: rounding where the graph says, and nowhere."""
    weights, found = weights_of(name, dtype), []
    for kind in (dtype, "float32"):
        graph, kv = graph_of(name, kind), ReferenceKV(NUM_BLOCKS, 8, kind)
        found.append(np.concatenate([interpret(graph, step, weights, kv).outputs["logits"] for step in steps()]))
    return found[0], found[1]


@in_turn(("name", ALL_REPRESENTATIVES), ("dtype", COMPUTE_DTYPES), ("level", isa_levels()))
def test_a_program_computes_what_its_graph_says(name: str, dtype: str, level: str) -> None:
    """float32: to a few roundings. 16 bits: about as near to the interpreter, which rounds where the graph says, as
    that is to exact arithmetic, or nearer: the roundings are the same, but for those that a last bit of float32 turns,
    and for the probabilities, which the interpreter never rounds and a bfloat16 kernel does."""
    model = model_of(name, dtype, level)
    ours = []
    for step in steps():
        outputs = model.run(step)
        ours.append(outputs.logits.copy())
        assert np.array_equal(outputs.top_ids[:, 0], outputs.logits[step.top_rows].argmax(axis=1))
        assert_same_bits(
            outputs.top_values[:, 0], outputs.logits[step.top_rows].max(axis=1), "both ways through the head"
        )
    got, (want, best) = np.concatenate(ours), logits_of(name, dtype)
    off = np.linalg.norm(got - want) / np.linalg.norm(want)
    rounding = float(np.linalg.norm(want - best) / np.linalg.norm(want))
    assert off <= {"float32": 2e-6, "float16": 0.6 * rounding, "bfloat16": rounding}[dtype]
    assert rounding <= {"float32": 0, "float16": 2e-3, "bfloat16": 2e-2}[dtype]


@pytest.mark.parametrize("name", ALL_REPRESENTATIVES)
def test_threads_and_ways_through_the_head_give_the_same_bits(name: str) -> None:
    level = isa_levels()[0]
    one = model_of(name, "bfloat16", level)
    wanted = [(o.logits.copy(), o.top_ids.copy(), o.top_values.copy()) for o in map(one.run, steps())]
    for threads in (2, 3):
        many = model_of(name, "bfloat16", level, threads)
        for step, (logits, ids, values) in zip(steps(), wanted, strict=True):
            got = many.run(step)
            assert_same_bits(got.logits, logits, "logits")
            assert np.array_equal(got.top_ids, ids)
            assert_same_bits(got.top_values, values, "values")
    top_only = model_of(name, "bfloat16", level)
    for step, (_, ids, values) in zip(steps("none", "last"), wanted, strict=True):
        got = top_only.run(step)
        assert got.logits.shape[0] == 0
        assert np.array_equal(got.top_ids, ids)
        assert_same_bits(got.top_values, values, "values")
    logits_only = model_of(name, "bfloat16", level)
    for step, all_rows, (logits, _, _) in zip(steps("last", "none"), steps(), wanted, strict=True):
        got = logits_only.run(step)
        assert got.top_ids.size == 0
        assert_same_bits(got.logits, logits[all_rows.top_rows], "logits")


def test_one_call_after_another_is_the_whole_program() -> None:
    """The same bits in the logits and in the KV cache; a buffer shows what a call wrote."""
    whole, single = (model_of("qwen3", "bfloat16", isa_levels()[0], threads=2) for _ in range(2))
    for step in steps():
        wanted = whole.run(step)
        for index in range(len(single.program.calls)):
            got = single.run_call(index, step)
        assert_same_bits(got.logits, wanted.logits, "logits")
        assert np.array_equal(got.top_ids, wanted.top_ids)
        assert_same_bits(single.value("logits", step), wanted.logits, "buffer of the logits")
        for layer in range(single.program.kv.num_layers):
            for ours, right in zip(single.cached(layer, step.slots), whole.cached(layer, step.slots), strict=True):
                assert ours.shape == (step.num_tokens, 2, 16)
                assert np.abs(right).max() > 0
                assert_same_bits(ours, right, f"cache of layer {layer}")


def test_copied_blocks_are_the_originals() -> None:
    """A sequence goes on from copies; copies are made in order, so that a chain of them works."""
    name, dtype, level = "llama", "bfloat16", isa_levels()[0]
    model = model_of(name, dtype, level)
    prompt, more = list(range(3, 17)), [20]
    model.run(make_step([Work(prompt, 0, [4, 6])], 8))
    wanted = model.run(make_step([Work(more, 14, [4, 6])], 8)).logits.copy()
    model.copy_blocks([(4, 2), (6, 1), (1, 9)])
    model.run(make_step([Work([1] * 16, 0, [4, 6])], 8))
    model.run(make_step([Work([1] * 8, 0, [1])], 8))
    assert_same_bits(model.run(make_step([Work(more, 14, [2, 9])], 8)).logits, wanted, "after copying")


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
@pytest.mark.parametrize("block_size", [8, 16, 32])
def test_block_bytes(dtype: str, block_size: int) -> None:
    """Keys and values of every layer, head and position, head_dim padded to 16."""
    size = 4 if dtype == "float32" else 2
    for head_dim, padded in ((8, 16), (16, 16), (20, 32), (128, 128)):
        layout = KVLayout(3, 2, head_dim, dtype, block_size)
        assert layout.block_bytes == 3 * 2 * 2 * block_size * padded * size
        assert KVMemory(layout, 2).memory.num_bytes == 2 * layout.block_bytes


def test_profile_names_every_call_and_restores_silence() -> None:
    model = model_of("qwen3", "float32", isa_levels()[0])
    timed = model.profile(steps()[0])
    assert [call for call, _ in timed] == list(model.program.calls)
    assert all(seconds >= 0 for _, seconds in timed)
    assert max(seconds for _, seconds in timed) > 0


def test_a_step_that_contradicts_itself_is_refused() -> None:
    model = model_of("llama", "float32", isa_levels()[0])
    step = steps()[0]
    for i in (1, 2, 3):
        broken = [a[:-1] if j == i else a for j, a in enumerate(step.arrays)]
        with pytest.raises(ValueError, match="disagree in length"):
            model.run(StepInputs(*broken))


def test_native_memory_is_zero_and_lives_as_long_as_its_view() -> None:
    view = _native.Memory(5000).view()
    assert view.shape == (5000,)
    assert not view.any()
    view[:] = 7
    assert view.sum() == 35000


@pytest.mark.parametrize("name", ["deepseek_v32", "minimax_m3_vl_text"])
def test_attention_to_chosen_positions_runs_without_what_chooses_them(name: str) -> None:
    """For measuring, as a tuning does: whatever lies where lists are, before and while it runs."""
    model = model_of(name, "float32", "scalar")
    attentions = [call for call in model.program.calls if call.family == "attention"]
    readers = [call for call in attentions if "chosen" in call.args]
    step = make_step([Work([3] * 30, 19, [7, 2, 9, 4, 1, 5, 11], 2)], 8)  # which sees 12 of 49 positions, or 24
    for calls in (attentions, readers):
        model.fill_with_numbers(NUM_BLOCKS)
        runner = model.runner(calls)
        runner(step)
        lists = {id(each): each for each in runner.lists}
        assert len(lists) == len({call.args["chosen"] for call in readers})
        assert all((each[:, :12] == np.arange(12)).all() for each in lists.values())
    assert not model.runner(model.program.calls).lists, "who makes its own lists reads those"


def test_a_step_has_no_more_positions_than_there_is_room_to_choose_from() -> None:
    """However many the cache has; of models that choose nothing, nothing is planned for positions."""
    plans, last = make_step([Work([1, 2], 0, [7, 2], 0)], 8), make_step([Work([3], 10, [7, 2], 0)], 8)
    for name, is_refused in (("deepseek_v32", True), ("llama", False)):
        weights = Weights({key: Stored(value, "float32") for key, value in weights_of(name, "float32").items()})
        program = program_of(name, "float32", "scalar", 8)
        model = CpuModel(program, weights, pool(), NUM_BLOCKS, max_positions=10)
        model.run(plans)
        if not is_refused:
            model.run(last)
            continue
        with pytest.raises(InvariantError, match="a step at position 10; memory is planned for 10 positions"):
            model.run(last)
