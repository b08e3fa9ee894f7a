"""CpuDevice: this machine's processors.

Made by devices.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from albireo.api.drafts.beside import Guesser, Keeping, MakeBeside
from albireo.api.machine.device import Advance, ImageNeeds, PlanRunner
from albireo.api.machine.memory import MemoryPlan, machine_bytes
from albireo.api.machine.swapping import Swapping
from albireo.api.sources.source import ModelSource
from albireo.backends.backend import ExplainedCatalog
from albireo.backends.cpu.adapters import CpuAdapters, RankAdapters, slot_bytes
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.choosing import score_bytes
from albireo.backends.cpu.machine import num_threads_of, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.pack import constant_offsets
from albireo.backends.cpu.ranks import TensorParallelModel, rank_pool
from albireo.backends.weights import Weights
from albireo.config import EngineConfig
from albireo.execution.adapters import AdapterProgram
from albireo.execution.draft_head import HiddenStates, StateStore
from albireo.execution.listening import Listener
from albireo.execution.runner import NO_PARTS, DeviceModel, Runner, RunnerParts
from albireo.execution.vision import TowerModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program


@dataclass(frozen=True, slots=True)
class CpuDevice:
    """This machine's processors. levels: ISA levels to choose kernels from."""

    levels: tuple[str, ...]
    name: Literal["cpu"] = "cpu"
    lookahead: int = 0

    def catalog(self) -> ExplainedCatalog:
        return CpuCatalog(self.levels)

    def machine_bytes(self) -> int:
        return machine_bytes()

    def weight_bytes(self, program: Program) -> int:
        return constant_offsets(program.constants)[1]

    def block_bytes(self, kv: KVLayout) -> int:
        return kv.block_bytes

    def choosing_bytes(self, config: EngineConfig, programs: Sequence[Program], max_positions: int) -> int:
        # a thread has room for each program that it runs; of ranks each thread runs one
        of_ranks = max((score_bytes(program, max_positions) for program in programs), default=0)
        return num_threads_of(config.num_threads) * of_ranks

    def swapping(self, config: EngineConfig, program: Program) -> Swapping:
        return Swapping()

    def model(
        self,
        config: EngineConfig,
        source: ModelSource,
        graph: Graph,
        programs: Sequence[Program],
        memory: MemoryPlan,
        advance: Advance,
        images: ImageNeeds | None = None,
        beside: MakeBeside | None = None,
    ) -> tuple[CpuModel | TensorParallelModel, MemoryPlan]:
        slots = memory.num_state_slots
        if len(programs) == 1:
            with source.weights(graph) as weights:
                pool = thread_pool(config.num_threads)
                model = CpuModel(
                    programs[0],
                    weights,
                    pool,
                    memory.num_blocks,
                    advance,
                    num_state_slots=slots,
                    max_positions=memory.max_model_len,
                )
            if beside is not None:
                beside(model, memory.num_blocks)
            return model, memory
        pool = rank_pool(config.num_threads, len(programs))
        ranks = TensorParallelModel(
            programs,
            lambda rank: source.weights(graph, rank),
            pool,
            memory.num_blocks,
            advance,
            slots,
            memory.max_model_len,
        )
        if beside is not None:
            beside(ranks, memory.num_blocks)
        return ranks, memory

    def guesser(self, config: EngineConfig, model: Any, asked: Guesser, num_blocks: int, advance: Advance) -> CpuModel:
        # on all threads, which wait meanwhile; what every rank has whole is the first's
        lender = model.ranks[0] if isinstance(model, TensorParallelModel) else model
        lent: dict[str, Any] = {"lender": lender, "borrowed": asked.borrowed, "reads_cache": asked.reads_cache}
        lent["max_positions"] = lender.max_positions
        return CpuModel(asked.program, asked.weights, model.pool, num_blocks, advance, **lent)

    def hidden_states(self, model: Any, head: Any, asked: Keeping, num_blocks: int) -> HiddenStates:
        size, width, combine = asked.block_size, asked.width, asked.combine
        return HiddenStates(num_blocks, size, width, is_exact=asked.is_exact, group=asked.group, combine=combine)

    def tower(
        self, config: EngineConfig, program: Program, weights: Weights, num_blocks: int, advance: Advance
    ) -> TowerModel:
        return CpuModel(program, weights, thread_pool(config.num_threads), num_blocks, advance)

    def listener(
        self, config: EngineConfig, model: Any, program: Program, weights: Weights, advance: Advance
    ) -> Listener:
        assert isinstance(model, CpuModel), "several ranks are refused"
        return CpuModel(program, weights, model.pool, model.num_blocks, advance, lender=model, reads_cache=True)

    def second(
        self,
        model: CpuModel | TensorParallelModel,
        programs: Sequence[Program],
        slots: CpuAdapters | RankAdapters | None = None,
    ) -> CpuModel | TensorParallelModel:
        if isinstance(model, CpuModel):
            assert not isinstance(slots, RankAdapters)
            return model.sharing(programs[0], adapters=slots)
        assert not isinstance(slots, CpuAdapters)
        return model.sharing(programs, slots)

    def adapter_bytes(self, program: Program, num_slots: int) -> int:
        return slot_bytes(program, num_slots)

    def adapter_slots(
        self, model: CpuModel | TensorParallelModel, programs: Sequence[Program], num_slots: int
    ) -> CpuAdapters | RankAdapters:
        ranks = [CpuAdapters(program, num_slots) for program in programs]
        return ranks[0] if isinstance(model, CpuModel) else RankAdapters(ranks)

    def adapted(
        self,
        model: CpuModel | TensorParallelModel,
        programs: Sequence[Program],
        slots: CpuAdapters | RankAdapters,
    ) -> AdapterProgram:
        return self.second(model, programs, slots)

    def runner(
        self,
        model: DeviceModel,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        parts: RunnerParts = NO_PARTS,
        hidden_states: StateStore | None = None,
    ) -> PlanRunner:
        own = model if isinstance(model, (CpuModel, TensorParallelModel)) else None
        assert hidden_states is None or isinstance(hidden_states, HiddenStates)
        return Runner(
            model,
            vocab_size,
            block_size,
            parts,
            states=own if own is not None and own.program.states else None,
            hidden_states=hidden_states,
            contents=own,
            threads=None if own is None else own.pool,
        )
