"""TensorParallelModel: the ranks of one model in this process, behind the interface of CpuModel.

Made by api/load when a model is cut among ranks. Each rank has its own program, weights, arena, KV cache and threads;
they meet in shared memory. Does not know how a model is cut: that is compiler/passes/shard.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from copy import copy

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.adapters import RankAdapters
from albireo.backends.cpu.machine import num_threads_of, thread_pool
from albireo.backends.cpu.model import CpuModel, Peers
from albireo.backends.joining import join_top
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.errors import ConfigError
from albireo.graph.program import Call, Program

#: Opens the weights of a rank.
OpenWeights = Callable[[int], AbstractContextManager[Weights | StoredWeights]]


def rank_pool(num_threads: int | None, size: int) -> _native.ThreadPool:
    """Threads for all ranks together; None: one per core, but at least one a rank.

    Raises: ConfigError when fewer threads than ranks are asked for: ranks wait for each other, each on a thread.
    """
    if num_threads is not None and num_threads < size:
        raise ConfigError(
            f"num_threads={num_threads} is fewer than tensor_parallel_size={size}; each rank needs a thread of its own"
        )
    return thread_pool(num_threads or max(size, num_threads_of(None)))


class TensorParallelModel:
    """One model on several ranks.

    Invariants: 1. a step runs on all ranks or on none; 2. nothing can fail between two meetings of the ranks, so none
    waits for one that is gone: what can be wrong with a step is found before the first begins.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        open_weights: OpenWeights,
        pool: _native.ThreadPool,
        num_blocks: int,
        progress: Callable[[int], None] = lambda _: None,
        num_state_slots: int = 0,
        max_positions: int | None = None,
    ) -> None:
        """Args: num_state_slots, max_positions: see CpuModel; every rank has as many."""
        self.pool = pool
        arenas = [_native.Memory(program.arena_bytes) for program in programs]
        ranks = []
        for rank, program in enumerate(programs):
            with open_weights(rank) as weights:
                peers = self._peers(rank, programs, arenas)
                model = CpuModel(
                    program, weights, pool, num_blocks, progress, peers, num_state_slots, max_positions=max_positions
                )
                ranks.append(model)
        self._widths = [program.buffers[program.outputs["logits"]].cols for program in programs]
        self._logits: NDArray[np.float32] = np.empty((programs[0].maxima["R"], sum(self._widths)), np.float32)
        self._take(ranks)

    def sharing(self, programs: Sequence[Program], slots: RankAdapters | None = None) -> TensorParallelModel:
        """Other programs of the same constants on the memory of these, KV cache included; they run in turn.

        Args: slots: of the linears that have adapters. Raises: InvariantError when they have other constants.
        """
        arenas = [_native.Memory(program.arena_bytes) for program in programs]
        ranks = [
            rank.sharing(program, self._peers(index, programs, arenas), None if slots is None else slots.ranks[index])
            for index, (rank, program) in enumerate(zip(self.ranks, programs, strict=True))
        ]
        other = copy(self)
        other._take(ranks)
        return other

    def _peers(self, rank: int, programs: Sequence[Program], arenas: Sequence[_native.Memory]) -> Peers:
        size, num_threads = len(programs), self.pool.size
        first, end = num_threads * rank // size, num_threads * (rank + 1) // size
        return Peers(rank, tuple(programs), arenas, first, end - first)

    def _take(self, ranks: list[CpuModel]) -> None:
        self.ranks = ranks
        self.program = ranks[0].program
        self._group = _native.Group([rank.native for rank in ranks])

    def run(self, inputs: StepInputs) -> StepOutputs:
        """Compute one step on all ranks, the GIL released.

        Raises: InvariantError when the step is larger than the programs were planned for; nothing is computed then.
        """
        self.ranks[0].check_size(inputs)
        ids, values = [rank.top_ids for rank in self.ranks], [rank.top_values for rank in self.ranks]
        states = inputs.state_slots, inputs.snapshot_slots, inputs.snapshot_rows
        adapters = self.ranks[0].adapter_slots(inputs)
        self._group.run(*self.ranks[0].step_arrays(inputs), ids, values, adapters, *states)
        parts = [rank.outputs(inputs) for rank in self.ranks]
        logits = self._logits[: len(parts[0].logits)]
        if len(logits):
            np.concatenate([part.logits for part in parts], axis=1, out=logits)
        best = join_top([p.top_ids for p in parts], [p.top_values for p in parts], self._widths, inputs.top_counts)
        # every rank has all of the residual, so the first has all of what norms and taps made of it
        return StepOutputs(logits, *best, parts[0].hidden, parts[0].taps)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks (source, target) in every layer of every rank, in order."""
        for rank in self.ranks:
            rank.copy_blocks(pairs)

    def block_content(self, block: int) -> list[memoryview]:
        """All bytes of a block of the KV cache of every rank, in parts, to be read or written between steps."""
        return [part for rank in self.ranks for part in rank.block_content(block)]

    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy what sequences keep on every rank, of whole slots (source, target), in order."""
        for rank in self.ranks:
            rank.copy_states(pairs)

    def state_content(self, slot: int) -> list[memoryview]:
        """The same of what a sequence keeps in a slot; nothing where layers keep no states."""
        return [part for rank in self.ranks for part in rank.state_content(slot)]

    def profile(self, inputs: StepInputs) -> list[tuple[Call, float]]:
        """Run one step and return each call of rank 0 with the seconds it took there; for finding where time goes."""
        native = self.ranks[0].native
        native.profile(True)
        self.run(inputs)
        return list(zip(self.program.calls, native.profile(False), strict=True))
