"""CudaDevice: one NVIDIA GPU; AbsentGpu: one that is not here.

Made by devices.py. Its packages are imported when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from albireo.api.drafts.beside import FEW_BLOCKS, Guesser, Keeping, MakeBeside
from albireo.api.machine.device import Advance, ImageNeeds, PlanRunner
from albireo.api.machine.memory import MemoryPlan, with_blocks
from albireo.api.machine.swapping import Swapping, plan_swapping
from albireo.api.ranks.rank_processes import COMMAND, RankProcesses, require_gpus, whole_vocabulary
from albireo.api.ranks.rank_start import RankStart, open_rank, prepare
from albireo.api.sources.source import ModelSource
from albireo.backends.backend import ExplainedCatalog
from albireo.backends.cuda.adapter_shapes import adapter_bytes, module_shapes
from albireo.backends.cuda.catalog import FP8_CAPABILITY, CudaCatalog
from albireo.backends.weights import Weights
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.execution.adapters import AdapterProgram
from albireo.execution.ahead import LOOKAHEAD, AheadRunner
from albireo.execution.draft_head import StateStore, combining_step
from albireo.execution.listening import Listener
from albireo.execution.runner import NO_PARTS, DeviceModel, Pooler, Runner, RunnerParts
from albireo.execution.vision import TowerModel
from albireo.graph.kv_layout import KVLayout
from albireo.graph.node import Graph
from albireo.graph.program import Program

if TYPE_CHECKING:
    from albireo.backends.cuda.adapters import CudaAdapters
    from albireo.backends.cuda.model import CudaModel

#: Memory of a GPU that is planned for and is not here: an H100's.
ABSENT_GPU_BYTES = 80 << 30


class CudaDevice:
    """One NVIDIA GPU. Raises: ConfigError saying what is wrong, and what to do, where none can be used."""

    name: Literal["cuda"] = "cuda"
    lookahead = LOOKAHEAD
    #: How the processes of ranks are started.
    rank_command: Sequence[str] = COMMAND
    #: Its name, for errors.
    _gpu = "this GPU"

    def __init__(self) -> None:
        from albireo.backends.cuda.device import require_gpu

        self._facts = require_gpu()
        self._gpu = str(self._facts.name)
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

    def choosing_bytes(self, config: EngineConfig, programs: Sequence[Program], max_positions: int) -> int:
        return 0  # what launchers need of their own, scores too, is found by a trial step

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
        check_cache(programs[0].kv.dtype, self._capability, self._gpu)
        if len(programs) > 1:
            assert images is None, "pictures beside several ranks are refused"
            ranks = self._ranks(config, source, programs, memory, advance, beside)
            return ranks, with_blocks(memory, config, ranks.num_blocks)
        from albireo.api.machine.compiling import compiling
        from albireo.backends.cuda.chip import first_chip
        from albireo.backends.cuda.open import open_model

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

    def _ranks(
        self,
        config: EngineConfig,
        source: ModelSource,
        programs: Sequence[Program],
        memory: MemoryPlan,
        advance: Advance,
        beside: MakeBeside | None,
    ) -> CudaModel:
        """The first of several ranks, each on a GPU of its own; the others run in processes of their own. What is
        beside is on the first one's GPU, whole, and runs while the others have nothing to do."""
        size, devices = len(programs), self.rank_devices(len(programs))
        processes = RankProcesses(self.rank_command)
        options = {
            "num_blocks": memory.num_blocks,
            "reserve_bytes": (memory.machine_bytes - memory.budget_bytes + memory.adapter_bytes) // size,
            "num_host_blocks": self.swapping(config, programs[0]).num_blocks,
            "num_state_slots": memory.num_state_slots,
            "max_num_seqs": config.step_limits.max_num_seqs,
            "is_eager": config.enforce_eager,
        }
        first = RankStart(
            config=replace(config, hf_overrides=None, mm_processor_kwargs=None),  # source.directory has them
            directory=source.directory,
            capability=self._capability,
            rank=0,
            size=size,
            vocab_size=whole_vocabulary(programs),
            device=devices[0],
            meeting=str(processes.directory / "meeting"),
            max_positions=memory.max_model_len,
            options=options,
            taps=() if beside is None else beside.taps,
        )
        starts = [replace(first, rank=rank, device=device) for rank, device in enumerate(devices)]
        try:
            prepare(first)
            processes.start(starts[1:])
            with self._compiling(config, source, programs[0], memory, beside) as wait:

                def placed() -> None:
                    wait()
                    processes.placed()

                model = open_rank(
                    first,
                    source,
                    programs[0],
                    placed,
                    processes.least,
                    lambda num_bytes: advance(size * num_bytes),
                    processes.watch,
                    None if beside is None else lambda model: beside(model, FEW_BLOCKS),
                )
        except BaseException:
            processes.close()
            raise
        model.leader = processes
        return model

    @contextmanager
    def _compiling(
        self, config: EngineConfig, source: ModelSource, program: Program, memory: MemoryPlan, beside: MakeBeside | None
    ) -> Iterator[Callable[[], None]]:
        """Compile the kernels of a rank's program, and of what is beside it, meanwhile. Gives what waits for them."""
        from albireo.api.machine.compiling import compiling
        from albireo.backends.cuda.chip import first_chip

        model_len = config.max_model_len or source.default_model_len
        of_rank = [(program, memory.max_model_len), *(() if beside is None else beside.programs)]
        with compiling(source.directory, config, of_rank, model_len=model_len, chip=first_chip()) as kernels:
            yield kernels.wait

    def rank_devices(self, size: int) -> list[str]:
        """Of each rank, as torch names it. Raises: ConfigError where there are fewer GPUs."""
        from albireo.backends.cuda.device import num_gpus

        require_gpus(size, num_gpus())
        return [f"cuda:{rank}" for rank in range(size)]

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
        rows = head.placed.head_rows
        assert rows is not None, "it leaves nothing"
        model.hidden_states = rows.states = states
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
        # its steps have the block tables of whole sequences
        asked = Guesser(program, weights, model.max_positions, reads_cache=True)
        return self.guesser(config, model, asked, model.num_blocks, advance)

    def second(self, model: CudaModel, programs: Sequence[Program], slots: CudaAdapters | None = None) -> Pooler:
        number = 0 if model.leader is None else model.leader.share("share")
        other = model.sharing(programs[0], slots)
        other.number = number
        return other

    def adapter_bytes(self, program: Program, num_slots: int) -> int:
        return adapter_bytes(program, num_slots)

    def adapter_slots(self, model: CudaModel, programs: Sequence[Program], num_slots: int) -> CudaAdapters:
        from albireo.backends.cuda.adapters import CudaAdapters

        whole = module_shapes(*programs)
        with nullcontext() if model.leader is None else model.leader.making_slots():
            slots = CudaAdapters(programs[0], num_slots, model.device, whole)
        slots.leader = model.leader
        return slots

    def adapted(self, model: CudaModel, programs: Sequence[Program], slots: CudaAdapters) -> AdapterProgram:
        number = 0 if model.leader is None else model.leader.share("adapt")
        other = model.with_adapters(programs[0], slots)
        other.number = number
        return other

    def runner(
        self,
        model: CudaModel,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        parts: RunnerParts = NO_PARTS,
        hidden_states: StateStore | None = None,
    ) -> PlanRunner:
        assert hidden_states is model.hidden_states, "the model keeps them itself"
        if parts.writer is not None:  # the host reads what frames say: no step could be begun ahead
            return Runner(model, vocab_size, block_size, parts, host=model)
        states = model if model.program.states else None
        return AheadRunner(model, vocab_size, block_size, max_positions, parts, states=states)


def check_cache(dtype: str, capability: int, name: str) -> None:
    """Raises: ConfigError when a GPU of a name cannot write a KV cache of a type."""
    if dtype == "fp8" and capability < FP8_CAPABILITY:
        here, needed = (f"{each / 10:.1f}" for each in (capability, FP8_CAPABILITY))
        raise ConfigError(
            f"kv_cache_dtype=fp8 needs compute capability {needed}, {name} has {here}; use int8, which holds as many "
            "tokens"
        )


class AbsentGpu(CudaDevice):
    """A GPU that is not here, to look at what a program for one would be."""

    def __init__(self, capability: int = 90, memory_bytes: int = ABSENT_GPU_BYTES) -> None:
        """Nothing is required; it is taken for one of Hopper, as ABSENT_GPU_BYTES is."""
        self._capability, self._memory_bytes = capability, memory_bytes

    def machine_bytes(self) -> int:
        return self._memory_bytes
