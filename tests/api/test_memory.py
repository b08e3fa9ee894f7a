"""Sharing memory out: what fits, and what is said when it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from albireo.api.load import plan_ranks
from albireo.api.machine.cuda_device import AbsentGpu
from albireo.api.machine.memory import OVERHEAD_BYTES, MemoryPlan, machine_bytes, plan_memory
from albireo.api.sources.locate import BUNDLED
from albireo.api.sources.source import open_source
from albireo.backends.cpu.pack import constant_offsets
from albireo.config import EngineConfig
from albireo.errors import OutOfMemory
from albireo.speculative_config import SpeculativeConfig

GIB = 1 << 30
BLOCK = 1 << 20


def plan(machine: int = 8 * GIB, weights: int = GIB, model_len: int = 1024, **config: Any) -> MemoryPlan:
    return plan_memory(
        EngineConfig(max_num_seqs=4, **config),
        weight_bytes=weights,
        arena_bytes=0,
        block_bytes=BLOCK,
        model_len=model_len,
        machine=machine,
    )


def test_the_pool_is_no_larger_than_the_sequences_could_use() -> None:
    found = plan(memory_utilization=0.9)
    assert found.num_blocks == 1 + 4 * 1024 // 16
    assert found.kv_bytes == found.num_blocks * BLOCK
    assert found.max_model_len == 1024


def test_the_pool_is_what_the_budget_leaves() -> None:
    found = plan(machine=2 * GIB, memory_utilization=0.75)
    assert found.num_blocks == (3 * GIB // 2 - GIB - OVERHEAD_BYTES) // BLOCK
    assert found.weight_bytes + OVERHEAD_BYTES + found.kv_bytes <= found.budget_bytes


def test_a_long_model_is_cut_to_what_one_sequence_can_hold() -> None:
    found = plan(machine=2 * GIB, model_len=100_000, memory_utilization=0.75)
    assert found.max_model_len == (found.num_blocks - 1) * 16 < 100_000


def test_bytes_and_blocks_can_be_said_outright() -> None:
    assert plan(kv_cache_memory_bytes=10 * BLOCK + 5).num_blocks == 10
    assert plan(num_gpu_blocks_override=7).num_blocks == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weights": 9 * GIB}, ["9.", "8.00 GiB", "memory_utilization", "lower max_model_len, max_num_batched_tokens"]),
        ({"kv_cache_memory_bytes": BLOCK}, ["1 blocks", "kv_cache_memory_bytes"]),
        ({"num_gpu_blocks_override": 1}, ["1 blocks", "raise num_gpu_blocks_override"]),
        ({"num_gpu_blocks_override": 2**40}, ["8.00 GiB", "lower num_gpu_blocks_override"]),
        ({"kv_cache_memory_bytes": 20 * GIB}, ["20.00 GiB", "8.00 GiB", "lower kv_cache_memory_bytes"]),
        ({"kv_cache_memory_bytes": 10 * BLOCK, "max_model_len": 1024}, ["64 KV blocks", "lower max_model_len to 144"]),
    ],
    ids=str,
)
def test_what_cannot_fit_is_refused_with_the_numbers_and_the_flag(arguments: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(OutOfMemory) as error:
        plan(**arguments)
    for word in words:
        assert word in str(error.value)


def test_this_machine_has_memory() -> None:
    assert machine_bytes() > 1 << 28


def test_the_memory_of_all_ranks_counts() -> None:
    """Weights, activations and KV blocks of each; a block of the cache is as large as that of one rank."""
    one, several = EngineConfig(), EngineConfig(tensor_parallel_size=2)
    (program,), alone = plan_ranks(one, open_source(BUNDLED, one))
    programs, memory = plan_ranks(several, open_source(BUNDLED, several))
    assert len(programs) == 2
    assert memory.weight_bytes == sum(constant_offsets(p.constants)[1] for p in programs) > alone.weight_bytes
    assert memory.arena_bytes == sum(p.arena_bytes for p in programs)
    assert (memory.num_blocks, memory.kv_bytes) == (alone.num_blocks, alone.kv_bytes)
    assert program.kv.num_kv_heads == 2 * programs[0].kv.num_kv_heads


def test_of_several_gpus_all_are_counted_as_the_one_that_guesses() -> None:
    """What guesses is whole on the first: what there is room for beside it is what each has."""
    asked = SpeculativeConfig.of({"method": "draft_model", "quantization": "int4"})
    weights, blocks = [], []
    for size in (1, 2):
        config = EngineConfig(device="cuda", tensor_parallel_size=size, kv_cache_memory_bytes=GIB)
        found = []
        for each in (config, replace(config, speculative_config=asked)):
            _, memory = plan_ranks(each, open_source(BUNDLED, each), device=AbsentGpu(memory_bytes=4 * GIB))
            found.append((memory.weight_bytes, memory.kv_bytes // memory.num_blocks))
        for sizes, plain, guessing in zip((weights, blocks), *found, strict=True):
            sizes.append(guessing - plain)
    assert weights[1] == 2 * weights[0] > 0
    assert blocks[1] == 2 * blocks[0] > 0


def test_engines_on_one_machine_have_equal_parts_of_it() -> None:
    whole = dict(weight_bytes=GIB, arena_bytes=0, block_bytes=BLOCK, model_len=100_000)
    config = EngineConfig(max_num_seqs=400, data_parallel_size=4)
    parts = plan_memory(config, machine=16 * GIB, num_engines=4, **whole)
    assert parts == plan_memory(config, machine=4 * GIB, **whole)
    with pytest.raises(OutOfMemory, match=r"of 1.00 GiB \(a part of the machine's memory for each of 4 engines\)"):
        plan_memory(config, machine=4 * GIB, num_engines=4, **whole)
    with pytest.raises(OutOfMemory, match="lower data_parallel_size"):
        plan_memory(config, machine=4 * GIB, num_engines=4, **whole)
    source = open_source(BUNDLED, config)
    _, (one, each) = zip(*(plan_ranks(EngineConfig(data_parallel_size=n), source) for n in (1, 2)), strict=True)
    assert each.budget_bytes == pytest.approx(one.budget_bytes / 2, abs=2)
