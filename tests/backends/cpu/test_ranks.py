"""TensorParallelModel and _native.Group: bits, KV blocks, threads, and steps and groups that are refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from albireo import _native
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.ranks import TensorParallelModel, rank_pool
from albireo.backends.step_inputs import StepInputs
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph
from albireo.errors import ConfigError, InvariantError, WeightMismatch
from albireo.graph.program import Program
from backends.cpu.harness import Guarded, assert_same_bits, pool
from backends.cpu.test_model import MAXIMA, NUM_BLOCKS, steps
from backends.cpu.test_pack import Stored, Weights
from compiler.ranks import STATES, wide_config, wide_graph, wide_hybrid
from in_turn import in_turn
from step_batches import Work, make_step
from tiny_models import random_weights

CASES = [
    ("llama", "bfloat16"),
    ("qwen2", "float32"),
    ("qwen3", "float16"),
    ("lfm2", "bfloat16"),
    ("falcon_h1", "float32"),
]
BLOCK_SIZE, NUM_SLOTS = 8, 4


def config_of(name: str) -> dict[str, Any]:
    return wide_hybrid(name) if name in STATES else wide_config(name)


def program_of(name: str, dtype: str, part: Part | None) -> Program:
    return compile_graph(
        wide_graph(config_of(name), dtype),
        CpuCatalog(isa_levels()),
        maxima=MAXIMA,
        block_size=BLOCK_SIZE,
        max_positions=64,
        part=part,
    )


def weights_of(name: str, dtype: str) -> Weights:
    return Weights({key: Stored(value, dtype) for key, value in random_weights(config_of(name), 1).items()})


def model_of(name: str, dtype: str, size: int, threads: int = 2) -> CpuModel | TensorParallelModel:
    weights = weights_of(name, dtype)
    if size == 1:
        program = program_of(name, dtype, Part(1, 0))
        return CpuModel(program, weights, pool(threads), NUM_BLOCKS, num_state_slots=NUM_SLOTS)

    @contextmanager
    def opened(rank: int) -> Iterator[Weights]:
        yield weights

    programs = [program_of(name, dtype, Part(size, rank)) for rank in range(size)]
    threads_of_all = rank_pool(max(threads, size), size)
    return TensorParallelModel(programs, opened, threads_of_all, NUM_BLOCKS, num_state_slots=NUM_SLOTS)


def results(model: CpuModel | TensorParallelModel, inputs: StepInputs) -> list[np.ndarray]:
    out = model.run(inputs)
    return [array.copy() for array in (out.logits, out.top_ids, out.top_values)]


@in_turn(("name, dtype", CASES), ("size, threads", [(2, 2), (2, 5), (4, 4), (8, 8)]))
def test_the_same_bits_as_one_rank(name: str, dtype: str, size: int, threads: int) -> None:
    """Prompts, a chunk, single tokens; logits and best few; threads that outnumber cores and are shared unevenly."""
    one, several = model_of(name, dtype, 1), model_of(name, dtype, size, threads)
    for logits, top in (("all", "last"), ("none", "last"), ("last", "none")):
        for each in steps(logits, top):
            inputs = replace(each, top_counts=np.array([1, 65, 7][: len(each.top_rows)], np.int32))
            for a, b in zip(results(one, inputs), results(several, inputs), strict=True):
                assert_same_bits(a, b, f"logits {logits}, top {top}")


def test_blocks_are_copied_on_every_rank() -> None:
    """A sequence goes on from copies of its blocks as from the blocks themselves."""
    model = model_of("llama", "bfloat16", 4)
    model.run(make_step([Work(list(range(1, 12)), 0, [3, 4])], BLOCK_SIZE))
    model.copy_blocks([(3, 7), (4, 8)])
    wanted = results(model, make_step([Work([5], 11, [3, 4])], BLOCK_SIZE))
    for a, b in zip(results(model, make_step([Work([5], 11, [7, 8])], BLOCK_SIZE)), wanted, strict=True):
        assert_same_bits(a, b)


def test_states_are_copied_on_every_rank() -> None:
    """A sequence goes on from a copy as from its own, which a step without a slot does not touch."""
    model = model_of("falcon_h1", "bfloat16", 4)
    model.run(make_step([Work(list(range(1, 12)), 0, [3, 4], 1)], BLOCK_SIZE))
    model.copy_states([(1, 3)])
    assert model.state_content(3) == model.state_content(1) != model.state_content(2)
    assert len(model.state_content(1)) == 4, "a part of each rank"
    with pytest.raises(ValueError, match="states need a slot for every sequence"):
        model.run(make_step([Work([5], 11, [3, 4])], BLOCK_SIZE))
    wanted = results(model, make_step([Work([5], 11, [3, 4], 1)], BLOCK_SIZE))
    for a, b in zip(results(model, make_step([Work([5], 11, [3, 4], 3)], BLOCK_SIZE)), wanted, strict=True):
        assert_same_bits(a, b)


def test_a_step_that_is_too_large_leaves_the_ranks_as_they_were() -> None:
    """Nobody waits for anybody then, and the next step runs."""
    model, fits = model_of("qwen2", "float32", 2), steps()[0]
    wanted = results(model, fits)
    with pytest.raises(InvariantError, match="a step with T=60; memory is planned for 48"):
        model.run(make_step([Work([1] * 60, 0, range(1, 9))], BLOCK_SIZE, "none", "none"))
    for a, b in zip(results(model, fits), wanted, strict=True):
        assert_same_bits(a, b)


def test_a_rank_that_fails_to_load_ends_the_load() -> None:
    weights, seen = weights_of("llama", "float32"), []

    @contextmanager
    def opened(rank: int) -> Iterator[Weights]:
        seen.append(rank)
        if rank == 1:
            raise WeightMismatch("the second rank's file is damaged")
        yield weights

    programs = [program_of("llama", "float32", Part(4, rank)) for rank in range(4)]
    with pytest.raises(WeightMismatch, match="the second rank's file"):
        TensorParallelModel(programs, opened, rank_pool(4, 4), NUM_BLOCKS)
    assert seen == [0, 1]


def test_a_rank_does_not_run_alone() -> None:
    program = program_of("llama", "float32", Part(2, 0))
    with pytest.raises(InvariantError, match="2 ranks run together or not at all"):
        CpuModel(program, weights_of("llama", "float32"), pool(), NUM_BLOCKS)


def test_threads_of_ranks() -> None:
    assert rank_pool(None, 1).size == len(_native.usable_cpus())
    assert rank_pool(None, 8).size >= 8 and rank_pool(3, 2).size == 3
    with pytest.raises(ConfigError, match="num_threads=1 is fewer than tensor_parallel_size=2"):
        rank_pool(1, 2)


def test_profile_times_the_calls_of_the_first_rank() -> None:
    model = model_of("llama", "bfloat16", 2)
    profile = model.profile(steps()[0])
    assert [call for call, _ in profile] == list(model.program.calls)
    assert sum(seconds for call, seconds in profile if call.family == "all_reduce") > 0


def native(threads: _native.ThreadPool, count: int, calls: int = 1, top: int = 1, slots: int = 0) -> _native.Program:
    program = _native.Program(threads, top, count)
    room = Guarded(np.zeros(64, np.float32))
    if slots:
        roles = dict.fromkeys(("x", "weight", "out", "state"), room.address)
        args = {**roles, "state_slots": slots, "state_size": 4, "n": 4, "k": 2}
        program.add("causal_conv", isa_levels()[-1], "float32", args)
    for _ in range(calls):
        program.add("gather", isa_levels()[-1], "float32", {"x": room.address, "out": room.address, "k": 4})
    return program


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p, other: [], "1 to 8 ranks"),
        (lambda p, other: [native(p, 1)] * 9, "1 to 8 ranks"),
        (lambda p, other: [native(p, 1), native(other, 1)], "share one pool"),
        (lambda p, other: [native(p, 1), native(p, 1, calls=2)], "must make the same calls"),
        (lambda p, other: [native(p, 1), native(p, 1, top=2)], "must make the same calls"),
        (lambda p, other: [native(p, 1, slots=3), native(p, 1, slots=4)], "must keep states of as many sequences"),
        (lambda p, other: [native(p, 1), native(p, 2)], "ranks of a group have 3 threads, their pool 2"),
    ],
)
def test_groups_that_would_wait_for_ever(make: object, words: str) -> None:
    """Ranks that do not meet at the same calls, or have no thread to come with."""
    with pytest.raises(ValueError, match=words):
        _native.Group(make(thread_pool(2), thread_pool(2)))  # type: ignore[operator]


def test_a_program_needs_threads_that_there_are() -> None:
    with pytest.raises(ValueError, match="threads that the pool has"):
        native(thread_pool(2), 3)
    lone = native(thread_pool(2), 1)
    inputs = steps("none", "none")[0]
    room = np.zeros((1, _native.TOP_MOST), np.int32), np.zeros((1, _native.TOP_MOST), np.float32)
    with pytest.raises(ValueError, match="a rank of a group runs with the group"):
        lone.run(*inputs.arrays, *room)
