"""Model directory -> ready engine parts: config, graph, program, memory, weights, tokenizer.

Called by llm.py, async_llm.py and the bench. The composition root: the one place that knows every room.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from albireo.api.adapters import Adapters
from albireo.api.compiled import compile_all
from albireo.api.drafts.draft_head import tapped
from albireo.api.drafts.drafter import NOTHING_GUESSES, Drafter, Loading
from albireo.api.machine.device import AdapterSlots, Device
from albireo.api.machine.devices import open_device
from albireo.api.machine.memory import MemoryPlan, plan_memory
from albireo.api.machine.share import Share
from albireo.api.machine.take_share import require_alone, take_gpu, take_processors
from albireo.api.machine.tuning import tuned
from albireo.api.media.hearing import Hearing, open_hearing
from albireo.api.media.perception import (
    HEARS,
    MAX_STEP_TILES,
    SEES,
    TEXT_ONLY,
    MediaProblems,
    Perception,
    media_problems,
    open_perception,
)
from albireo.api.pooler import LazyPooler
from albireo.api.prefix_files import check_prefix_files, open_prefix_files
from albireo.api.programs import MAX_PROMPT_ROWS, compile_program
from albireo.api.progress import bytes_bar
from albireo.api.sources.locate import locate_model
from albireo.api.sources.recommended import recommended
from albireo.api.sources.source import ModelSource, guard, open_source
from albireo.api.tokenizer import open_tokenizer
from albireo.artifact.layout import rebuild_hint
from albireo.artifact.reader import is_engine_directory, tokenizer_directory
from albireo.backends.cpu.model import CpuModel
from albireo.backends.cpu.ranks import TensorParallelModel
from albireo.compiler.passes import added_rows, deepstack, hidden_states
from albireo.compiler.rewrite import copy_graph
from albireo.config import EngineConfig
from albireo.engine.kept_prefixes import BlockFiles
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError, NoGpu
from albireo.execution.adapters import AdapterRunner
from albireo.execution.draft_head import StateStore
from albireo.execution.runner import DeviceModel, Pooler, RunnerParts
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models.config import ModelConfig
from albireo.models.gguf.kept_heads import heads_kept
from albireo.models.settings.context import check_context
from albireo.models.settings.generation import GenerationDefaults, eos_token_ids
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.vision.tower import VisionTower
from albireo.process_limits import naming_shortages
from albireo.speculative.proposer import Method
from albireo.step import StepPlan, StepResult
from albireo.structured.compiler import require_xgrammar
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)


def nothing_to_prepare() -> bool:
    """Of a device whose steps are all alike."""
    return False


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything an engine is made of.

    Fields:
        program: of the first rank; other_ranks: of the others.
        device: cpu or cuda.
        execute: makes a plan happen on model. prepare: what later steps would wait for, a piece a call, while there is
            nothing to execute; returns whether it did any.
        pooler: gives hidden states in place of logits; None when the model's head has a shape that is not known.
        pooling_rule: what its files say of embeddings, or of scores.
        files: where blocks of sequences that are over are kept; None: nowhere.
        adapters: those that requests may have; None without enable_lora.
        method: how drafts are made; None: as settings.speculative says. hidden_states: those that a head reads, which
            execute keeps.
        config_directory: where config.json is, and what says how images are prepared.
        load_s: seconds it took, weights included.
    """

    config: EngineConfig
    directory: Path
    model_config: ModelConfig
    defaults: GenerationDefaults
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer | None
    program: Program
    settings: EngineSettings
    memory: MemoryPlan
    model: DeviceModel
    execute: Callable[[StepPlan], StepResult]
    load_s: float
    other_ranks: tuple[Program, ...] = ()
    device: str = "cpu"
    pooler: LazyPooler | None = None
    pooling_rule: PoolingRule = PoolingRule()  # noqa: RUF009  # it is frozen
    adapters: Adapters | None = None
    prepare: Callable[[], bool] = nothing_to_prepare
    method: Method | None = None
    hidden_states: StateStore | None = None
    config_directory: Path = Path()
    files: BlockFiles | None = None

    def close(self) -> None:
        """Let go of files that it holds open; nothing runs it any more."""
        if self.files is not None:
            self.files.close()

    @property
    def one_rank(self) -> CpuModel:
        """The model, for whoever looks at its calls one by one. Raises: ConfigError when several ranks compute it."""
        if self.device != "cpu":
            raise ConfigError(f"calls are looked at one by one on the CPU; this runs on {self.device}, use device=cpu")
        if not isinstance(self.model, CpuModel):
            raise ConfigError(
                f"{self.directory} runs on {1 + len(self.other_ranks)} ranks, and calls are looked at on one; use the "
                "checkpoint, or a build without --tp"
            )
        return self.model


@heads_kept()
@naming_shortages()
def load(
    config: EngineConfig,
    *,
    show_progress: bool = False,
    levels: Sequence[str] | None = None,
    is_tuned: bool = True,
    share: Share | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Loaded:
    """Make a model ready to run.

    Memory is planned before a weight is read; the tokenizer loads beside the weights.

    Args:
        levels: ISA levels to choose kernels from, all of which this machine must have; None: all it has.
        is_tuned: run with what was measured for this machine, where there is something; false: with the kernels' own
            numbers.
        share: of the machine, where this is one engine of several; None: it is the only one.
        on_progress: told the fraction of the weights that is ready, after each piece.
    Raises: ModelError, ConfigError, OutOfMemory; nothing is left allocated then.
    """
    started = time.perf_counter()
    if config.structured_outputs_backend == "xgrammar":
        require_xgrammar()
    if share is None:
        require_alone(config)
    else:
        config = replace(config, data_parallel_size=share.count)
        take_gpu(config, share)
    directory = locate_model(config.model)
    with ThreadPoolExecutor(1, "albireo-tokenizer") as beside:
        tokenizer = None if config.skip_tokenizer_init else beside.submit(_tokenizer, config, directory)
        source = open_source(directory, config)
        config = source.adopt(config)
        model_config = source.model_config
        defaults = recommended(source.config_directory)
        device = _device_for(config, directory, levels)
        config = replace(config, device=device.name)
        if share is not None and device.name == "cpu":
            config = take_processors(config, share)
        programs, memory, drafter, perception, hearing = _plan_all(config, source, device)
        check_prefix_files(config, device.name, not model_config.takes_whole_prompts)
        problems = MediaProblems(HEARS, "", HEARS) if hearing else media_problems(source, perception)
        _warn(config, directory, problems)
        if drafter is not None:
            drafter.check_tokens(tokenizer.result() if tokenizer else None)
        swapping = device.swapping(config, programs[0])
        if is_tuned and device.name == "cpu":
            programs = tuple(tuned(program, directory, config.num_threads)[0] for program in programs)
            if isinstance(perception, Perception):
                measured = (tuned(program, directory, config.num_threads)[0] for program in perception.all_programs)
                perception = perception.with_programs(measured)
            if hearing is not None:
                hearing = hearing.tuned(directory, config.num_threads)
        graph = source.graph(memory.max_model_len)
        both = programs if drafter is None else (*programs, *drafter.programs)
        if isinstance(perception, Perception):
            both = (*both, *perception.all_programs)
        if hearing is not None:
            both = (*both, *hearing.programs)
        images, listener, writer = None, None, None
        with _progress(both, show_progress, on_progress) as advance:
            needs = None
            if isinstance(perception, Perception):
                # before the model, which takes what is left of a GPU's memory
                images = perception.load(device, config, model_config, memory.max_model_len, advance)
                needs = perception.needs(programs[0], model_config)
            elif hearing is not None and hearing.frames is None:
                images, needs = hearing.encoder(device, config, advance), hearing.needs(device)
            loading = None if drafter is None else Loading(drafter, device, advance, is_tuned)
            model, memory = device.model(config, source, graph, programs, memory, advance, needs, loading)
            guessing = NOTHING_GUESSES if loading is None else loading.loaded
            if hearing is not None and hearing.frames is not None:
                writer = hearing.writer(device, config, model, programs[0], advance)
            elif hearing is not None:
                listener = hearing.listener(device, config, model, advance)
        second = SecondPrograms(config, source, device, model, is_tuned, () if drafter is None else drafter.taps)
        adapters = second.adapters() if config.enable_lora else None
        pooler = None
        if model_config.pooling is not None:
            pooler = LazyPooler(lambda: model)
        elif hearing is None and not hidden_states.problem(graph):
            pooler = second.pooler()
        rule = source.pooling_rule
        ending = source.pooled_head()
        tower = perception.tower if isinstance(perception, Perception) else None
        parts = RunnerParts(
            pooler,
            ending,
            adapters=None if adapters is None else adapters.runner,
            images=images,
            seeing=None if tower is None else second.seeing(tower),
            seeing_pooler=None if tower is None or pooler is None else second.seeing_pooler(tower),
            listener=listener,
            writer=writer,
        )
        longest, states = memory.max_model_len, guessing.hidden_states
        runner = device.runner(model, model_config.num_ids, config.block_size, longest, parts, states)
        marks = model_config.marks
        eos = eos_token_ids(model_config, defaults) or _eos_of(tokenizer, model_config.vocab_size)
        if marks is not None:
            eos = (marks.end,)
        files = None
        if config.prefix_cache_dir is not None:
            assert isinstance(model, (CpuModel, TensorParallelModel)), "of the CPU"
            files = open_prefix_files(config, source.directory, programs, memory.max_model_len, model)
        settings = EngineSettings.from_config(
            config,
            num_blocks=memory.num_blocks,
            windows=memory.windows,
            groups_in_chunks=programs[0].kv.in_chunks,
            max_model_len=memory.max_model_len,
            vocab_size=model_config.num_ids,
            eos_token_ids=frozenset(eos),
            max_prompt_rows=MAX_PROMPT_ROWS,
            lookahead=device.lookahead,
            num_host_blocks=swapping.num_blocks,
            swap_cost_tokens=swapping.cost_tokens,
            num_state_slots=memory.num_state_slots,
            embedding_size=0 if pooler is None else ending.size(model_config.pooled_width),
            model=model_config,
            pooling_rule=rule,
            image_problem=problems.images,
            sound_problem=problems.sounds,
            video_problem=problems.videos,
            are_images_whole=isinstance(perception, Perception) and perception.sees_both_ways,
            max_step_tiles=MAX_STEP_TILES[device.name],
        )
        return Loaded(
            config=config,
            directory=directory,
            config_directory=source.config_directory,
            model_config=model_config,
            defaults=defaults,
            eos_token_ids=eos,
            tokenizer=tokenizer.result() if tokenizer else None,
            program=programs[0],
            other_ranks=programs[1:],
            settings=settings,
            memory=memory,
            model=model,
            execute=runner.execute,
            prepare=lambda: runner.prepare() or guessing.prepare(),
            load_s=time.perf_counter() - started,
            device=device.name,
            pooler=pooler,
            pooling_rule=rule,
            adapters=adapters,
            method=guessing.method,
            hidden_states=guessing.hidden_states,
            files=files,
        )


def _warn(config: EngineConfig, directory: Path, problems: MediaProblems) -> None:
    """Of what a model has a part for, and nobody reads, though nobody said that it is not wanted. Raises: ConfigError
    where somebody said how pictures are to be prepared, and none are."""
    if config.mm_processor_kwargs is not None and problems.images:
        raise ConfigError(f"mm_processor_kwargs: images are not read so: {problems.images}")
    limits = config.limit_mm_per_prompt
    for what, problem, most in (("images", problems.images, limits.image), ("sounds", problems.sounds, limits.audio)):
        if problem not in ("", TEXT_ONLY, HEARS, SEES) and most != 0:
            _LOG.warning("%s: %s are not read: %s", directory, what, problem)


def _eos_of(tokenizer: Future[Tokenizer] | None, vocab_size: int) -> tuple[int, ...]:
    """What ends a text by tokenizer_config.json: for models whose configs name nothing, which would never stop."""
    loaded = tokenizer.result() if tokenizer else None
    eos = loaded.eos_token_id if loaded else None
    return (eos,) if eos is not None and eos < vocab_size else ()


@dataclass(slots=True)
class SecondPrograms:
    """What compiles further programs on the weights of a loaded model, when they are wanted, as plan_ranks() did."""

    config: EngineConfig
    source: ModelSource
    device: Device
    model: DeviceModel
    is_tuned: bool
    taps: tuple[int, ...] = ()
    slots: AdapterSlots | None = None

    def adapters(self) -> Adapters:
        """Makes slots; from here on every program has adapters."""
        slots = self.slots = self.device.adapter_slots(self.model, self._programs(None), self.config.max_loras)
        runner = AdapterRunner(slots, lambda: self.device.adapted(self.model, self._tuned(None), slots))
        return Adapters(runner, slots.shapes, self.config.max_lora_rank, self.source.model_config.head_dim)

    def pooler(self) -> LazyPooler:
        """The program that gives hidden states."""
        return LazyPooler(lambda: self._second(hidden_states.run))

    def seeing(self, tower: VisionTower) -> LazyPooler | None:
        """The program of steps with images whose rows are added to embeddings, or behind layers, too; None: that of
        all others."""
        if tower.adds_rows:
            return LazyPooler(lambda: self._second(added_rows.run))
        deep = tower.deep_layers
        return LazyPooler(lambda: self._second(lambda graph: deepstack.run(graph, deep))) if deep else None

    def seeing_pooler(self, tower: VisionTower) -> LazyPooler | None:
        """That of such steps that gives hidden states; None: pooler()."""
        deep = tower.deep_layers
        if not deep:
            return None
        gives_states = self.source.model_config.pooling is not None

        def change(graph: Graph) -> None:
            deepstack.run(graph, deep)
            if not gives_states:
                hidden_states.run(graph)

        return LazyPooler(lambda: self._second(change))

    def _second(self, change: Callable[[Graph], object]) -> Pooler:
        return self.device.second(self.model, self._tuned(change), self.slots)

    def _tuned(self, change: Callable[[Graph], object] | None) -> tuple[Program, ...]:
        programs = self._programs(change)
        if self.is_tuned and self.device.name == "cpu":
            threads = self.config.num_threads
            programs = tuple(tuned(program, self.source.directory, threads)[0] for program in programs)
        return programs

    def _programs(self, change: Callable[[Graph], object] | None) -> tuple[Program, ...]:
        config, source, catalog = self.config, self.source, self.device.catalog()
        model_len = config.max_model_len or source.default_model_len
        with guard(source):
            graph = tapped(copy_graph(source.graph(model_len)), self.taps, source.model_config)
            if change is not None:
                change(graph)
            return tuple(
                compile_program(graph, config, model_len, part, catalog, has_adapters=config.enable_lora)
                for part in source.parts
            )


def plan(config: EngineConfig, source: ModelSource, device: Device | None = None) -> tuple[Program, MemoryPlan]:
    """plan_ranks(), and of its programs the first rank's."""
    programs, memory = plan_ranks(config, source, device=device)
    return programs[0], memory


def plan_ranks(
    config: EngineConfig, source: ModelSource, device: Device | None = None
) -> tuple[tuple[Program, ...], MemoryPlan]:
    """Compile the program of each rank and share out the memory among all, without touching a weight.

    Args: config: as source.adopt() gives it. device: None: what config asks for.

    Raises: ConfigError, OutOfMemory, UnsupportedModel; EngineFileError when a built source does not fit.
    """
    programs, memory, *_ = _plan_all(config, source, device or open_device(config))
    return programs, memory


def _device_for(config: EngineConfig, directory: Path, levels: Sequence[str] | None) -> Device:
    """Raises: ConfigError; of a directory that was built for a GPU, which no other device reads, says what then."""
    try:
        return open_device(config, levels)
    except NoGpu as error:
        if not is_engine_directory(directory):
            raise
        raise NoGpu(
            f"{directory}: is built for device=cuda, and {error.reason}; or run its model with --device cpu, or "
            f"{rebuild_hint(directory)}. albireo doctor says more",
            error.reason,
        ) from error


def _plan_all(
    config: EngineConfig, source: ModelSource, device: Device
) -> tuple[tuple[Program, ...], MemoryPlan, Drafter | None, Perception | str, Hearing | None]:
    """plan_ranks(), and what else has its part of the memory: the draft model; what reads pictures and sounds, or why
    nothing does; and what a decoder listens to."""
    model_len = config.max_model_len or source.default_model_len
    check_context(source.model_config, model_len)
    compiled = compile_all(config, source, model_len, device)
    programs, drafter = compiled.programs, compiled.drafter
    perception = open_perception(config, source, device)
    weight_bytes, working_bytes = 0, 0
    if isinstance(perception, Perception):
        weight_bytes += perception.weight_bytes(device)
        working_bytes = perception.working_bytes(device, perception.needs(programs[0], source.model_config))
    hearing = open_hearing(config, source, device, programs[0])
    if hearing is not None:
        weight_bytes, working_bytes = hearing.weight_bytes(device), hearing.working_bytes(device)
    memory = plan_memory(
        config,
        weight_bytes=compiled.weight_bytes(device) + weight_bytes,
        arena_bytes=compiled.arena_bytes(device) + working_bytes + compiled.choosing_bytes(device, config, model_len),
        block_bytes=compiled.block_bytes(device),
        model_len=model_len,
        # of a GPU for each rank
        machine=device.machine_bytes() * (1 if device.name == "cpu" else len(programs)),
        num_engines=config.data_parallel_size if device.name == "cpu" else 1,
        adapter_bytes=sum(compiled.adapter_bytes),
        slot_bytes=sum(program.states.slot_bytes for program in programs),
        are_weights_shared=source.shares_weights,
        windows=programs[0].kv.windows,
    )
    return programs, memory, drafter, perception, hearing


def _tokenizer(config: EngineConfig, directory: Path) -> Tokenizer:
    return open_tokenizer(Path(config.tokenizer) if config.tokenizer else tokenizer_directory(directory))


@contextmanager
def _progress(
    programs: Sequence[Program], show: bool, on_progress: Callable[[float], None] | None
) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of the weights, on a terminal; what to call with the bytes just packed."""
    total = sum(program.weight_bytes for program in programs)
    if on_progress is not None:
        tell, num_done = on_progress, 0

        def note(num_bytes: int) -> None:
            nonlocal num_done
            num_done += num_bytes
            tell(min(1.0, num_done / max(1, total)))

        yield note
        return
    with bytes_bar("Loading weights", total, is_wanted=show) as advance:
        yield advance
