"""What fits into memory: where the bytes of a workload go, the longest context, and the most requests at once.

Called by plan.py. Counts, and allocates nothing. api/machine/memory.py shares memory out for a model that is loaded, to
the same sizes; here the question is what a workload needs, on this machine or on another.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.api.drafts.drafter import Drafter
from albireo.api.machine.device import Device
from albireo.api.machine.memory import MOST_FREE_BLOCKS, OVERHEAD_BYTES, part_of
from albireo.config import EngineConfig
from albireo.engine.block_tables import Windows, blocks_needed, capacity_tokens
from albireo.errors import OutOfMemory
from albireo.graph.program import Program


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """The sizes a workload is held against, in bytes.

    Fields:
        budget_bytes: what the engine may use in all.
        block_bytes: one KV block; block_size: its positions. windows: of the groups of layers that take blocks.
        max_new: most tokens of a step.
        room_blocks: KV blocks that fit beside the rest, the null block included; may be below 2: nothing fits.
        context_limit: longest sequence that the model or the settings allow.
        state_bytes: what max_num_seqs sequences keep beside the KV cache.
        vision_bytes: of what reads images: weights, and activations of a usual one.
        drafter_bytes: weights of what guesses; its activations, and its part of a block, are with the model's.
    """

    budget_bytes: int
    weight_bytes: int
    activation_bytes: int
    overhead_bytes: int
    block_bytes: int
    block_size: int
    room_blocks: int
    context_limit: int
    adapter_bytes: int = 0
    state_bytes: int = 0
    vision_bytes: int = 0
    drafter_bytes: int = 0
    windows: Windows = (None,)
    max_new: int = 2048

    @property
    def fixed_bytes(self) -> int:
        """Everything but the KV cache."""
        beside = self.adapter_bytes + self.state_bytes + self.vision_bytes + self.drafter_bytes
        return self.weight_bytes + beside + self.activation_bytes + self.overhead_bytes

    @property
    def longest_context(self) -> int:
        """Tokens of a single sequence that has the cache alone."""
        room = capacity_tokens(max(0, self.room_blocks - 1), self.block_size, self.windows, self.max_new)
        return min(self.context_limit, room)

    def requests_at_once(self, length: int) -> int:
        """Requests of a length whose KV caches fit side by side."""
        first = self.blocks_for(1, length)
        return max(0, 1 + (self.room_blocks - first) // (self.blocks_for(2, length) - first))

    def blocks_for(self, num_requests: int, length: int) -> int:
        """KV blocks of requests, and the null block."""
        size, windows = self.block_size, self.windows
        return 1 + blocks_needed(length, size, windows, self.max_new, num_sequences=num_requests)

    def bytes_per_token(self, windows: Windows) -> int:
        """Of the KV cache, of groups with these windows."""
        return len(windows) * self.block_bytes // self.block_size

    def check(self, num_requests: int, length: int) -> None:
        """Raises: OutOfMemory with the numbers when so many requests of a length do not fit side by side."""
        kv_bytes = self.blocks_for(num_requests, length) * self.block_bytes
        needed = self.fixed_bytes + kv_bytes
        if self.blocks_for(num_requests, length) <= self.room_blocks:
            return
        adapters = f"what drafts {_gib(self.drafter_bytes)}, " if self.drafter_bytes else ""
        adapters += f"adapters {_gib(self.adapter_bytes)}, " if self.adapter_bytes else ""
        states = f"states of sequences {_gib(self.state_bytes)}, " if self.state_bytes else ""
        states += f"what reads images {_gib(self.vision_bytes)}, " if self.vision_bytes else ""
        parts = (
            f"weights {_gib(self.weight_bytes)}, {adapters}{states}activations {_gib(self.activation_bytes)}, overhead "
            f"{_gib(self.overhead_bytes)}, KV cache {_gib(kv_bytes)}"
        )
        room = max(0, self.room_blocks) * self.block_bytes
        what = f"{num_requests} requests of {length} tokens need" if num_requests > 1 else f"{length} tokens need"
        fits, context = self.requests_at_once(length), self.longest_context
        if fits:
            way_out = f"{fits} at once fit: lower the concurrency, or allow more memory"
        elif context:
            way_out = f"a context of {context} tokens fits: lower the lengths, or allow more memory"
        else:
            seats = ", max_num_seqs (each has a state)" if self.state_bytes else ""
            way_out = f"nothing fits: allow more memory, lower max_num_batched_tokens{seats}, or use a smaller model"
        raise OutOfMemory(
            f"{what} {_gib(needed)} ({parts}); {_gib(self.budget_bytes)} are allowed, "
            f"with room for {_gib(room)} of KV cache; {way_out}"
        )


def memory_parts(
    config: EngineConfig,
    device: Device,
    program: Program,
    context_limit: int,
    memory_bytes: int | None = None,
    shares_weights: bool = False,
    adapter_bytes: int = 0,
    vision_bytes: int = 0,
    drafter: Drafter | None = None,
) -> MemoryParts:
    """Count the parts.

    Args:
        memory_bytes: what the engine may use, or all that are on the machine; None: memory_utilization of its memory.
        shares_weights: those engines have them in memory together.
        adapter_bytes: of the slots of adapters. vision_bytes: of what reads images.
        drafter: what guesses, where it has weights.
    kv_cache_memory_bytes and num_gpu_blocks_override set the size of the cache as they do for loading, within what
    there is.
    """
    weight_bytes = device.weight_bytes(program)
    num_engines = config.data_parallel_size if device.name == "cpu" else 1
    allowed = int(device.machine_bytes() * config.memory_utilization) if memory_bytes is None else memory_bytes
    budget = part_of(allowed, num_engines, weight_bytes if shares_weights else 0)
    block_bytes, drafter_bytes = device.block_bytes(program.kv), 0
    activation_bytes = program.arena_bytes + device.choosing_bytes(config, [program], context_limit)
    if drafter is not None:
        block_bytes += drafter.block_bytes(device)
        for each in drafter.programs:
            activation_bytes += each.arena_bytes + device.choosing_bytes(config, [each], context_limit)
        drafter_bytes = drafter.weight_bytes(device)
    state_bytes = program.states.slot_bytes * config.step_limits.max_num_seqs
    beside = adapter_bytes + state_bytes + vision_bytes + drafter_bytes
    fixed = weight_bytes + beside + activation_bytes + OVERHEAD_BYTES
    # where no layer has attention only tokens are counted by blocks
    room = (budget - fixed) // block_bytes if block_bytes else MOST_FREE_BLOCKS * (fixed <= budget)
    if config.num_gpu_blocks_override is not None:
        room = min(room, config.num_gpu_blocks_override * program.kv.num_groups)
    elif block_bytes and config.kv_cache_memory_bytes is not None:
        room = min(room, config.kv_cache_memory_bytes // block_bytes)
    return MemoryParts(
        budget_bytes=budget,
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        overhead_bytes=OVERHEAD_BYTES,
        block_bytes=block_bytes,
        block_size=config.block_size,
        room_blocks=room,
        context_limit=context_limit,
        adapter_bytes=adapter_bytes,
        state_bytes=state_bytes,
        vision_bytes=vision_bytes,
        drafter_bytes=drafter_bytes,
        windows=program.kv.windows,
        max_new=config.step_limits.max_num_batched_tokens,
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
