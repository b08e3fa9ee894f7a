"""The devices a program can run on, behind one interface: which kernels there are, how much memory, the model.

Called by load.py. A GPU's packages are imported when one is asked for, or found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from albireo.api.beside import FEW_BLOCKS, Guesser, Keeping, MakeBeside
from albireo.api.memory import MemoryPlan, machine_bytes, with_blocks
from albireo.api.source import ModelSource
from albireo.api.swapping import Swapping, plan_swapping
from albireo.backends.backend import ExplainedCatalog
from albireo.backends.cpu.adapters import CpuAdapters, slot_bytes
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.pack import constant_offsets
from albireo.backends.cpu.ranks import TensorParallelModel, rank_pool
from albireo.backends.cuda.adapter_shapes import adapter_bytes
from albireo.backends.cuda.catalog import FP8_CAPABILITY, CudaCatalog
from albireo.backends.weights import Weights
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.execution.adapters import AdapterProgram, AdapterRunner, Slots
from albireo.execution.ahead import LOOKAHEAD, AheadRunner
from albireo.execution.draft_head import HiddenStates, StateStore, combining_step
from albireo.execution.images import ImageRows
from albireo.execution.listening import Listener
from albireo.execution.pooling import Ending
from albireo.execution.runner import DeviceModel, Pooler, Runner
from albireo.execution.vision import TowerModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.step import StepPlan, StepResult

if TYPE_CHECKING:
    from albireo.backends.cuda.adapters import CudaAdapters
    from albireo.backends.cuda.model import CudaModel

#: Memory of a GPU that is planned for and is not here: an H100's.
ABSENT_GPU_BYTES = 80 << 30

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

    def adapter_slots(self, model: Any, program: Program, num_slots: int) -> AdapterSlots:
        """Slots of the adapters of a program that runs on the memory of model()."""
        ...

    def adapted(self, model: Any, program: Program, slots: Any) -> AdapterProgram:
        """The program with adapters of the same weights, on the memory of model(). slots: adapter_slots()."""
        ...

    def runner(
        self,
        model: Any,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        pooler: Pooler | None,
        adapters: AdapterRunner | None = None,
        ending: Ending | None = None,
        images: ImageRows | None = None,
        seeing: Pooler | None = None,
        hidden_states: StateStore | None = None,
        listener: Listener | None = None,
    ) -> PlanRunner:
        """What makes the engine's plans happen on model()."""
        ...


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
        if len(programs) == 1:
            with source.weights(graph) as weights:
                pool = thread_pool(config.num_threads)
                slots = memory.num_state_slots
                model = CpuModel(programs[0], weights, pool, memory.num_blocks, advance, num_state_slots=slots)
            if beside is not None:
                beside(model, memory.num_blocks)
            return model, memory
        assert beside is None, "nothing guesses beside several ranks"
        pool = rank_pool(config.num_threads, len(programs))
        ranks = TensorParallelModel(
            programs, lambda rank: source.weights(graph, rank), pool, memory.num_blocks, advance
        )
        return ranks, memory

    def guesser(self, config: EngineConfig, model: Any, asked: Guesser, num_blocks: int, advance: Advance) -> CpuModel:
        lent: dict[str, Any] = {"lender": model, "borrowed": asked.borrowed, "reads_cache": asked.reads_cache}
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
        slots: CpuAdapters | None = None,
    ) -> Pooler:
        if isinstance(model, CpuModel):
            return model.sharing(programs[0], adapters=slots)
        assert slots is None, "EngineConfig refuses enable_lora on several ranks"
        return model.sharing(programs)

    def adapter_bytes(self, program: Program, num_slots: int) -> int:
        return slot_bytes(program, num_slots)

    def adapter_slots(self, model: CpuModel | TensorParallelModel, program: Program, num_slots: int) -> CpuAdapters:
        return CpuAdapters(program, num_slots)

    def adapted(self, model: CpuModel | TensorParallelModel, program: Program, slots: CpuAdapters) -> AdapterProgram:
        return self.second(model, (program,), slots)

    def runner(
        self,
        model: DeviceModel,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        pooler: Pooler | None,
        adapters: AdapterRunner | None = None,
        ending: Ending | None = None,
        images: ImageRows | None = None,
        seeing: Pooler | None = None,
        hidden_states: StateStore | None = None,
        listener: Listener | None = None,
    ) -> PlanRunner:
        states = model if isinstance(model, CpuModel) and model.program.states else None
        assert hidden_states is None or isinstance(hidden_states, HiddenStates)
        return Runner(
            model,
            vocab_size,
            block_size,
            pooler,
            adapters=adapters,
            states=states,
            ending=ending,
            images=images,
            seeing=seeing,
            hidden_states=hidden_states,
            listener=listener,
        )


class CudaDevice:
    """One NVIDIA GPU. Raises: ConfigError saying what is wrong, and what to do, where none can be used."""

    name: Literal["cuda"] = "cuda"
    lookahead = LOOKAHEAD

    def __init__(self) -> None:
        from albireo.backends.cuda.device import require_gpu

        self._facts = require_gpu()
        major, minor = self._facts.capability or (0, 0)
        #: 90 is 9.0.
        self._capability = 10 * major + minor

    def catalog(self) -> ExplainedCatalog:
        return CudaCatalog(self._capability)

    def machine_bytes(self) -> int:
        assert self._facts.memory_bytes is not None
        return self._facts.memory_bytes

    def weight_bytes(self, program: Program) -> int:
        return program.weight_bytes

    def block_bytes(self, kv: KVLayout) -> int:
        return kv.block_bytes

    def swapping(self, config: EngineConfig, program: Program) -> Swapping:
        return plan_swapping(config, program, self.block_bytes(program.kv))

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
        self._check_cache(programs[0].kv.dtype)
        from albireo.api.compile_ahead import compiling
        from albireo.backends.cuda.chip import first_chip
        from albireo.backends.cuda.open import open_model

        if len(programs) != 1:
            raise ConfigError(
                f"device=cuda: tensor_parallel_size={len(programs)} is not supported on GPUs yet; leave it out"
            )
        chip, model_len = first_chip(), config.max_model_len or source.default_model_len
        with (
            compiling(
                source.directory,
                config,
                [(programs[0], memory.max_model_len), *(() if beside is None else beside.programs)],
                model_len=model_len,
                chip=chip,
            ) as kernels,
            source.weights(graph) as weights,
        ):
            model = open_model(
                programs[0],
                weights,
                num_blocks=memory.num_blocks,
                max_positions=memory.max_model_len,
                before_trial=kernels.wait,
                reserve_bytes=memory.machine_bytes
                - memory.budget_bytes
                + memory.adapter_bytes
                + (images.room_bytes if images else 0),
                num_host_blocks=self.swapping(config, programs[0]).num_blocks,
                num_state_slots=memory.num_state_slots,
                max_num_seqs=config.step_limits.max_num_seqs,
                has_axes=images is not None and images.has_axes,
                is_eager=config.enforce_eager,
                advance=advance,
                beside=None if beside is None else lambda model: beside(model, FEW_BLOCKS),
            )
        return model, with_blocks(memory, config, model.num_blocks)

    def guesser(
        self, config: EngineConfig, model: CudaModel, asked: Guesser, num_blocks: int, advance: Advance
    ) -> CudaModel:
        from albireo.backends.cuda.open import open_model

        return open_model(
            asked.program,
            asked.weights,
            num_blocks=num_blocks,
            max_positions=asked.max_positions,
            is_eager=config.enforce_eager,
            device=model.device,
            advance=advance,
            lender=model,
            borrowed=asked.borrowed,
            reads_cache=asked.reads_cache,
        )

    def hidden_states(self, model: CudaModel, head: CudaModel, asked: Keeping, num_blocks: int) -> StateStore:
        from albireo.backends.cuda.hidden_states import DeviceHiddenStates

        combine = asked.combine
        states = DeviceHiddenStates(
            num_blocks,
            asked.block_size,
            asked.width,
            model.device,
            is_exact=asked.is_exact,
            group=asked.group,
            unit=model.program.kv.units[asked.group],
            combine=None if combine is None else lambda rows: combine.output_there(combining_step(rows, 1), "hidden"),
        )
        assert head.head_rows is not None, "it leaves nothing"
        model.hidden_states = head.head_rows.states = states
        return states

    def tower(
        self, config: EngineConfig, program: Program, weights: Weights, num_blocks: int, advance: Advance
    ) -> TowerModel:
        from albireo.backends.cuda.open import open_model

        return open_model(
            program,
            weights,
            num_blocks=num_blocks,
            max_positions=program.maxima["T"],
            is_tower=True,
            is_eager=True,
            advance=advance,
        )

    def listener(
        self, config: EngineConfig, model: Any, program: Program, weights: Weights, advance: Advance
    ) -> Listener:
        from albireo.backends.cuda.open import open_model

        return open_model(
            program,
            weights,
            num_blocks=model.num_blocks,
            max_positions=program.maxima["T"],
            is_eager=True,
            device=model.device,
            advance=advance,
            lender=model,
            reads_cache=True,
        )

    def _check_cache(self, dtype: str) -> None:
        """Raises: ConfigError when this GPU cannot write a KV cache of a type."""
        if dtype == "fp8" and self._capability < FP8_CAPABILITY:
            here, needed = (f"{each / 10:.1f}" for each in (self._capability, FP8_CAPABILITY))
            raise ConfigError(
                f"kv_cache_dtype=fp8 needs compute capability {needed}, {self._facts.name} has {here}; use int8, which "
                "holds as many tokens"
            )

    def second(self, model: CudaModel, programs: Sequence[Program], slots: CudaAdapters | None = None) -> Pooler:
        return model.sharing(programs[0], slots)

    def adapter_bytes(self, program: Program, num_slots: int) -> int:
        return adapter_bytes(program, num_slots)

    def adapter_slots(self, model: CudaModel, program: Program, num_slots: int) -> CudaAdapters:
        from albireo.backends.cuda.adapters import CudaAdapters

        return CudaAdapters(program, num_slots, model.device)

    def adapted(self, model: CudaModel, program: Program, slots: CudaAdapters) -> AdapterProgram:
        return model.with_adapters(program, slots)

    def runner(
        self,
        model: CudaModel,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        pooler: Pooler | None,
        adapters: AdapterRunner | None = None,
        ending: Ending | None = None,
        images: ImageRows | None = None,
        seeing: Pooler | None = None,
        hidden_states: StateStore | None = None,
        listener: Listener | None = None,
    ) -> PlanRunner:
        assert hidden_states is model.hidden_states, "the model keeps them itself"
        states = model if model.program.states else None
        return AheadRunner(
            model,
            vocab_size,
            block_size,
            max_positions,
            pooler,
            states,
            ending,
            images,
            seeing,
            adapters,
            listener=listener,
        )


class AbsentGpu(CudaDevice):
    """A GPU that is not here, to look at what a program for one would be."""

    def __init__(self, capability: int = 90) -> None:
        """Nothing is required; it is taken for one of Hopper, as ABSENT_GPU_BYTES is."""
        self._capability = capability

    def machine_bytes(self) -> int:
        return ABSENT_GPU_BYTES


def planning_device(config: EngineConfig) -> Device:
    """As open_device(), to plan for and not to run on: a GPU that is asked for need not be here."""
    return AbsentGpu() if config.device == "cuda" and not _has_gpu() else open_device(config)


def open_device(config: EngineConfig, levels: Sequence[str] | None = None) -> Device:
    """The device that config asks for; auto: a GPU that can be used, else the CPU.

    Args: levels: ISA levels to choose kernels from, which only a CPU has; None: those of this machine.
    Raises: ConfigError when a GPU is asked for and there is none that can be used.
    """
    if config.device == "cuda":
        return CudaDevice()
    if config.device == "auto" and levels is None and _has_gpu():
        return CudaDevice()
    return CpuDevice(tuple(isa_levels() if levels is None else levels))


def _has_gpu() -> bool:
    from albireo.backends.cuda.device import driver_version, gpu_facts

    return driver_version() is not None and gpu_facts().problem is None
