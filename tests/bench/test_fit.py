"""Memory of a workload by part, by hand and against what loading shares out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from albireo.api.load import plan
from albireo.api.machine.cpu_device import CpuDevice
from albireo.api.machine.memory import OVERHEAD_BYTES, plan_memory
from albireo.api.programs import compile_program
from albireo.api.sources.source import open_source
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.pack import constant_offsets
from albireo.bench.fit import MemoryParts, memory_parts
from albireo.config import EngineConfig
from albireo.errors import OutOfMemory
from albireo.models import build_graph, load_architecture
from albireo.models.config_keys import parse_config
from backends.cpu.test_pack import Stored, Weights
from tiny_models import make_checkpoint, random_weights

CPU = CpuDevice(isa_levels())
#: 100 of weights, 20 of activations, 30 of overhead, blocks of 16 tokens and 10 bytes; 1,000 allowed.
HAND = MemoryParts(1000, 100, 20, 30, 10, 16, (1000 - 150) // 10, 4096)


def compiled(config, name="llama"):
    architecture = load_architecture(name)
    model_config = parse_config(architecture.tiny, architecture.rules)
    return compile_program(build_graph(model_config, 64), config, 64)


def test_what_fits_by_hand():
    assert HAND.fixed_bytes == 150
    assert HAND.room_blocks == 85
    assert HAND.longest_context == 84 * 16
    assert replace(HAND, context_limit=100).longest_context == 100
    assert HAND.requests_at_once(16) == 84
    assert HAND.requests_at_once(17) == 42
    assert HAND.blocks_for(42, 17) == 85


def test_check_is_exact():
    HAND.check(42, 17)
    with pytest.raises(OutOfMemory, match="; 42 at once fit"):
        HAND.check(43, 17)
    with pytest.raises(OutOfMemory, match="a context of 1344 tokens fits"):
        HAND.check(1, 1345)


@pytest.mark.parametrize("room", [1, 0, -7])
def test_nothing_fits(room):
    small = replace(HAND, room_blocks=room)
    assert small.longest_context == 0
    assert small.requests_at_once(1) == 0
    with pytest.raises(OutOfMemory, match=r"nothing fits.*max_num_batched_tokens, or use"):
        small.check(1, 1)
    with pytest.raises(OutOfMemory, match=r"states of sequences.*lower max_num_batched_tokens, max_num_seqs"):
        replace(small, state_bytes=40).check(1, 1)


def test_the_message_has_the_numbers():
    gib = 1 << 30
    parts = MemoryParts(8 * gib, 4 * gib, gib, gib, gib // 16, 16, 32, 4096)
    with pytest.raises(OutOfMemory) as error:
        parts.check(4, 256)
    assert re.findall(r"[\d.]+ GiB", str(error.value)) == [
        "10.06 GiB", "4.00 GiB", "1.00 GiB", "1.00 GiB", "4.06 GiB", "8.00 GiB", "2.00 GiB",
    ]  # fmt: skip
    assert "; 1 at once fit" in str(error.value)


def test_the_same_sizes_as_loading():
    config = EngineConfig(max_num_seqs=4, max_num_batched_tokens=32)
    program = compiled(config)
    found = memory_parts(config, CPU, program, 64, 1 << 30)
    shared = plan_memory(
        replace(config, memory_utilization=1.0),
        weight_bytes=constant_offsets(program.constants)[1],
        arena_bytes=program.arena_bytes,
        block_bytes=program.kv.block_bytes,
        model_len=64,
        machine=1 << 30,
    )
    assert (found.weight_bytes, found.activation_bytes) == (shared.weight_bytes, shared.arena_bytes)
    assert found.block_bytes * shared.num_blocks == shared.kv_bytes
    assert found.overhead_bytes == OVERHEAD_BYTES
    assert found.fixed_bytes + found.room_blocks * found.block_bytes <= 1 << 30
    assert found.fixed_bytes + (found.room_blocks + 1) * found.block_bytes > 1 << 30


def test_the_size_of_the_cache_can_be_given():
    config = EngineConfig()
    program = compiled(config)
    by_count = memory_parts(replace(config, num_gpu_blocks_override=7), CPU, program, 64, 1 << 30)
    assert by_count.room_blocks == 7
    block = by_count.block_bytes
    assert memory_parts(replace(config, kv_cache_memory_bytes=5 * block), CPU, program, 64, 1 << 30).room_blocks == 5
    tight = memory_parts(
        replace(config, num_gpu_blocks_override=10**6), CPU, program, 64, by_count.fixed_bytes + 3 * block
    )
    assert tight.room_blocks == 3


def test_memory_utilization_counts_without_an_amount():
    program = compiled(EngineConfig())
    half, whole = (memory_parts(EngineConfig(memory_utilization=u), CPU, program, 64).budget_bytes for u in (0.5, 1.0))
    assert half == pytest.approx(whole / 2, abs=1)


def test_scores_of_all_positions_are_counted():
    """Of each thread, as many as the longest sequence has positions: what the native core then takes for them."""
    config, ours = EngineConfig(num_threads=3, max_num_seqs=4, max_num_batched_tokens=32), []
    program = compiled(config, "deepseek_v32")
    tiny = load_architecture("deepseek_v32").tiny
    weights = Weights({name: Stored(array, "float32") for name, array in random_weights(tiny, 1).items()})
    for longest in (2**18, 2**20):
        model = CpuModel(program, weights, thread_pool(3), 2**16, max_positions=longest)
        ours.append((memory_parts(config, CPU, program, longest, 1 << 30).activation_bytes, model.native.scratch_bytes))
    (short, taken), (long, more) = ours
    assert short == program.arena_bytes + 3 * 4 * 2**18
    assert long - short == 3 * (more - taken) == 3 * 4 * (2**20 - 2**18)
    assert memory_parts(config, CPU, compiled(config), 4096, 1 << 30).activation_bytes == compiled(config).arena_bytes


def test_loading_leaves_room_for_scores(tmp_path):
    tiny = load_architecture("deepseek_v32").tiny
    without_scaling = {key: value for key, value in tiny.items() if key != "rope_scaling"}
    make_checkpoint(tmp_path, without_scaling | {"max_position_embeddings": 2**20})
    found = {}
    for threads in (1, 64):
        config = EngineConfig(model=str(tmp_path), num_threads=threads, max_model_len=2**20, max_num_seqs=1)
        source = open_source(tmp_path, config)
        found[threads] = plan(source.adopt(config), source, CPU)[1]
    assert found[64].arena_bytes - found[1].arena_bytes == 63 * 4 * 2**20
