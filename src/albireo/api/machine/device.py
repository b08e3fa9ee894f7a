"""Device: what a program can run on, behind one interface: which kernels there are, how much memory, the model.

Implemented by cpu_device.py and cuda_device.py, chosen by devices.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from albireo.api.drafts.beside import Guesser, Keeping, MakeBeside
from albireo.api.machine.memory import MemoryPlan
from albireo.api.machine.swapping import Swapping
from albireo.api.sources.source import ModelSource
from albireo.backends.backend import ExplainedCatalog
from albireo.backends.weights import Weights
from albireo.config import EngineConfig
from albireo.execution.adapters import AdapterProgram, Slots
from albireo.execution.draft_head import StateStore
from albireo.execution.listening import Listener
from albireo.execution.runner import NO_PARTS, DeviceModel, Pooler, RunnerParts
from albireo.execution.vision import TowerModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.step import StepPlan, StepResult

Advance = Callable[[int], None]


class PlanRunner(Protocol):
    """Makes plans happen on one model; see execution.runner.Runner."""

    def execute(self, plan: StepPlan) -> StepResult: ...

    def prepare(self) -> bool: ...


class AdapterSlots(Slots, Protocol):
    """Memory for adapters, of any of a device's programs that has some."""

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """module -> outputs, inputs, of those that may have an adapter."""
        ...


@dataclass(frozen=True, slots=True)
class ImageNeeds:
    """What steps with pictures take beside what all do.

    Fields: room_bytes: of rows and rotations that the largest brings. has_axes: see execution.images.RopeAxes.
    """

    room_bytes: int
    has_axes: bool


class Device(Protocol):
    """Where a program runs."""

    @property
    def name(self) -> Literal["cpu", "cuda"]: ...

    @property
    def lookahead(self) -> int:
        """See EngineSettings."""
        ...

    def catalog(self) -> ExplainedCatalog: ...

    def machine_bytes(self) -> int:
        """Memory for weights, activations and KV cache, of which memory_utilization is a fraction."""
        ...

    def weight_bytes(self, program: Program) -> int: ...

    def block_bytes(self, kv: KVLayout) -> int:
        """Of one KV block over all layers."""
        ...

    def choosing_bytes(self, config: EngineConfig, programs: Sequence[Program], max_positions: int) -> int:
        """Of scores of all positions, where sequences of up to max_positions choose which of them they see.

        Args: programs: of one model, one of each rank.
        """
        ...

    def swapping(self, config: EngineConfig, program: Program) -> Swapping:
        """Host memory for blocks of preempted sequences, where that is another memory than the KV cache's."""
        ...

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
    ) -> tuple[DeviceModel, MemoryPlan]:
        """The programs with their weights, ready to run, and the memory as it was shared out in the end.

        Args: advance: told the bytes of each constant that is in place. images: None: no step has any. beside: makes
            what has blocks of the same numbers; None: nothing has.
        """
        ...

    def guesser(
        self, config: EngineConfig, model: Any, asked: Guesser, num_blocks: int, advance: Advance
    ) -> DeviceModel:
        """A program that guesses for model(), ready to run, of which blocks have the numbers of model()'s."""
        ...

    def hidden_states(self, model: Any, head: Any, asked: Keeping, num_blocks: int) -> StateStore:
        """Where those of model() are kept that a head reads, which guesser() made."""
        ...

    def tower(
        self, config: EngineConfig, program: Program, weights: Weights, num_blocks: int, advance: Advance
    ) -> TowerModel:
        """A program of a vision tower, or of its projector, with weights of its own, ready to run."""
        ...

    def listener(
        self, config: EngineConfig, model: Any, program: Program, weights: Weights, advance: Advance
    ) -> Listener:
        """A program with weights of its own that writes the KV cache of model(), ready to run."""
        ...

    def second(self, model: Any, programs: Sequence[Program], slots: Any = None) -> Pooler:
        """Other programs of the same weights, on the memory of model(). slots: of adapters, if they have any."""
        ...

    def adapter_bytes(self, program: Program, num_slots: int) -> int:
        """Of adapter_slots(), and of what else a program with adapters needs."""
        ...

    def adapter_slots(self, model: Any, programs: Sequence[Program], num_slots: int) -> AdapterSlots:
        """Slots of the adapters of programs, one of each rank, that run on the memory of model()."""
        ...

    def adapted(self, model: Any, programs: Sequence[Program], slots: Any) -> AdapterProgram:
        """The programs with adapters of the same weights, on the memory of model(). slots: adapter_slots()."""
        ...

    def runner(
        self,
        model: Any,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        parts: RunnerParts = NO_PARTS,
        hidden_states: StateStore | None = None,
    ) -> PlanRunner:
        """What makes the engine's plans happen on model(). hidden_states: hidden_states(), where a head reads them."""
        ...
