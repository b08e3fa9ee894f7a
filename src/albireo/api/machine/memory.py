"""How memory is shared out, before any weight is read: weights, arena, and what is left for the KV cache.

Called by load.py. Sizes in bytes. Does not allocate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from albireo.config import EngineConfig
from albireo.control_group import control_group
from albireo.engine.block_tables import Windows, blocks_needed, capacity_tokens
from albireo.errors import OutOfMemory
from albireo.process_limits import memory_limit
from albireo.system import available_memory, total_memory

#: Python, libraries, tokenizer, scratch of threads: measured about 150 MiB with a vocabulary of 152,000.
OVERHEAD_BYTES = 300 << 20
#: Snapshots of states, by which prefixes are found again, have this part of what is left for the KV cache, and no more
#: than so many a seat and a few: a conversation has two, where its newest prompt and its newest answer end.
SNAPSHOTS_FRAC, SNAPSHOTS_PER_SEAT, FEW_SNAPSHOTS = 1 / 8, 2, 8
#: Of a model without attention, whose blocks are no memory: as many as the lists that count them may be long.
MOST_FREE_BLOCKS = 2**18


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where the bytes go.

    Fields:
        machine_bytes: of the machine, or of one engine's part of it.
        num_blocks: KV blocks, the null block included; kv_bytes is their size. windows: of the block groups that share
            them, see engine/block_tables.py.
        max_model_len: longest sequence the pool can hold, at most the one asked for.
        adapter_bytes: slots of adapters; state_bytes: num_state_slots slots of what sequences keep beside the KV cache;
            0 where there are none.
    """

    machine_bytes: int
    budget_bytes: int
    weight_bytes: int
    arena_bytes: int
    kv_bytes: int
    num_blocks: int
    max_model_len: int
    adapter_bytes: int = 0
    state_bytes: int = 0
    num_state_slots: int = 0
    windows: Windows = (None,)


def machine_bytes() -> int:
    """Memory of this machine, or of what this process is confined to: a control group, or limits of its own."""
    limits = control_group().memory_bytes, memory_limit()
    return min([_told(total_memory()), *(each for each in limits if each is not None)])


def available_bytes() -> int:
    """Of machine_bytes(), what nobody uses now, as the kernel guesses."""
    available, group = _told(available_memory()), control_group()
    return min([available, *(each for each in (group.memory_bytes, group.free_bytes) if each is not None)])


def plan_memory(
    config: EngineConfig,
    *,
    weight_bytes: int,
    arena_bytes: int,
    block_bytes: int,
    model_len: int,
    machine: int,
    num_engines: int = 1,
    adapter_bytes: int = 0,
    slot_bytes: int = 0,
    are_weights_shared: bool = False,
    windows: Windows = (None,),
) -> MemoryPlan:
    """Blocks and context that fit.

    Args:
        block_bytes: one KV block. windows: of the groups of layers that take blocks.
        model_len: the context asked for, or the model's own.
        machine: memory of the machine; num_engines: so many engines like this one have it, each with its own weights
            unless they are shared.
        adapter_bytes: the slots of adapters. slot_bytes: what a sequence keeps beside the KV cache.

    The pool is kv_cache_memory_bytes, or num_gpu_blocks_override blocks for each group, or what memory_utilization
    leaves, but no more than max_num_seqs sequences of full length could use.
    Raises: OutOfMemory with the numbers, and the flag that would help.
    """
    shared = weight_bytes if are_weights_shared else 0
    budget = part_of(int(machine * config.memory_utilization), num_engines, shared)
    machine = part_of(machine, num_engines, shared)
    fixed = weight_bytes + adapter_bytes + arena_bytes + OVERHEAD_BYTES
    num_slots = _num_state_slots(config, slot_bytes, budget - fixed)
    state_bytes = num_slots * slot_bytes
    fixed += state_bytes
    size, max_new = config.block_size, config.step_limits.max_num_batched_tokens
    num_seqs = config.step_limits.max_num_seqs
    most = 1 + blocks_needed(model_len, size, windows, max_new, num_sequences=num_seqs)
    least = 1 + len(windows)
    if not block_bytes:  # only tokens are counted by them
        most = max(min(most, MOST_FREE_BLOCKS), 1 + blocks_needed(model_len, size, windows, max_new))
    if config.num_gpu_blocks_override is not None:
        num_blocks = config.num_gpu_blocks_override * len(windows)
    elif not block_bytes:
        num_blocks = most
    elif config.kv_cache_memory_bytes is not None:
        num_blocks = config.kv_cache_memory_bytes // block_bytes
    else:
        num_blocks = min(most, (budget - fixed) // block_bytes)
    is_said = config.num_gpu_blocks_override is not None or config.kv_cache_memory_bytes is not None
    pool_flag = "kv_cache_memory_bytes" if config.num_gpu_blocks_override is None else "num_gpu_blocks_override"
    sizes = (
        f"weights {_gib(weight_bytes)}, activations {_gib(arena_bytes)}, overhead {_gib(OVERHEAD_BYTES)}, "
        f"KV block of {config.block_size} tokens {block_bytes} bytes"
    )
    of_all = "" if num_engines == 1 else f" (a part of the machine's memory for each of {num_engines} engines)"
    if adapter_bytes:
        sizes = f"{config.max_loras} adapters of rank {config.max_lora_rank} {_gib(adapter_bytes)}, {sizes}"
    if state_bytes:
        beside = num_slots - num_seqs
        snapshots = f" and {beside} snapshots" if beside else ""
        sizes = f"states of {num_seqs} sequences{snapshots} {_gib(state_bytes)}, {sizes}"
    if fixed > budget or (
        num_blocks < least and config.num_gpu_blocks_override is None and fixed + least * block_bytes > budget
    ):
        raise OutOfMemory(
            f"the model needs {_gib(fixed + least * block_bytes)} at least ({sizes}); "
            f"memory_utilization={config.memory_utilization} of {_gib(machine)}{of_all} allows {_gib(budget)}. "
            "Raise memory_utilization, lower max_model_len, max_num_batched_tokens or max_num_seqs"
            + (", or max_loras or max_lora_rank" if adapter_bytes else "")
            + ", or use a smaller model"
            + ("" if num_engines == 1 else ", or lower data_parallel_size")
        )
    if num_blocks < least:
        raise OutOfMemory(
            f"the KV cache has room for {num_blocks} blocks, at least {least} are needed ({sizes}); raise {pool_flag}"
        )
    if fixed + num_blocks * block_bytes > machine:
        raise OutOfMemory(
            f"a KV cache of {_gib(num_blocks * block_bytes)} and {_gib(fixed)} beside it ({sizes}) exceed the "
            f"machine's {_gib(machine)}{of_all}; lower {pool_flag}"
        )
    capacity = capacity_tokens(num_blocks - 1, size, windows, max_new)
    if config.max_model_len is not None and capacity < config.max_model_len:
        raise OutOfMemory(
            f"max_model_len={config.max_model_len} needs "
            f"{blocks_needed(config.max_model_len, size, windows, max_new)} KV blocks, "
            f"{num_blocks - 1} fit ({sizes}); lower max_model_len to {capacity}, or raise {pool_flag}"
            + ("" if is_said else " or memory_utilization")
        )
    return MemoryPlan(
        machine,
        budget,
        weight_bytes,
        arena_bytes,
        num_blocks * block_bytes,
        num_blocks,
        min(model_len, capacity),
        adapter_bytes,
        state_bytes,
        num_slots,
        windows,
    )


def _num_state_slots(config: EngineConfig, slot_bytes: int, left: int) -> int:
    """Slots of states: one for each sequence that may run, and what there is room for beside them."""
    num_seqs = config.step_limits.max_num_seqs
    if not slot_bytes:
        return 0
    room = int((left - num_seqs * slot_bytes) * SNAPSHOTS_FRAC) // slot_bytes
    wanted = num_seqs * SNAPSHOTS_PER_SEAT + FEW_SNAPSHOTS if config.enable_prefix_caching else 0
    if config.speculative_config is not None:
        wanted += num_seqs  # what is gone back to where drafts do not come true
    return num_seqs + max(0, min(room, wanted))


def part_of(num_bytes: int, num_engines: int, shared: int) -> int:
    """What one of several engines may take of bytes that are for all, with those that they share, of which each may
    think that it has them alone."""
    return (num_bytes - shared) // num_engines + shared


def with_blocks(plan: MemoryPlan, config: EngineConfig, num_blocks: int) -> MemoryPlan:
    """A plan of which fewer blocks came true. Raises: OutOfMemory when more were asked for by number, or are needed."""
    if num_blocks >= plan.num_blocks:
        return plan
    asked = config.num_gpu_blocks_override is not None or config.kv_cache_memory_bytes is not None
    max_new = config.step_limits.max_num_batched_tokens
    capacity = capacity_tokens(num_blocks - 1, config.block_size, plan.windows, max_new)
    if asked or (config.max_model_len is not None and capacity < config.max_model_len):
        raise OutOfMemory(
            f"{plan.num_blocks} KV blocks of {_gib(plan.kv_bytes)} are asked for, {num_blocks} fit after a trial step; "
            f"lower kv_cache_memory_bytes, or max_model_len to {capacity}, or raise memory_utilization"
        )
    kv_bytes = plan.kv_bytes // plan.num_blocks * num_blocks
    return replace(plan, num_blocks=num_blocks, kv_bytes=kv_bytes, max_model_len=min(plan.max_model_len, capacity))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"


def _told(num_bytes: int | None) -> int:
    if num_bytes is None:
        raise OutOfMemory("the operating system does not say how much memory there is; set kv_cache_memory_bytes")
    return num_bytes
