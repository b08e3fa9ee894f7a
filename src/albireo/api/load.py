"""Model directory -> ready engine parts: config, graph, program, memory, weights, tokenizer.

Called by llm.py, async_llm.py and the bench. The composition root: the one place that knows every room.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albireo.api.locate import locate_model
from albireo.api.memory import MemoryPlan, machine_bytes, plan_memory
from albireo.api.source import ModelSource, guard, open_source
from albireo.api.tokenizer import open_tokenizer
from albireo.api.tuning import tuned
from albireo.artifact.reader import tokenizer_directory
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel, kv_block_bytes
from albireo.backends.cpu.pack import constant_offsets
from albireo.backends.cpu.ranks import TensorParallelModel, rank_pool
from albireo.compiler.passes import hidden_states
from albireo.compiler.passes.shard import Part
from albireo.compiler.pipeline import compile_graph, passes_without
from albireo.compiler.rewrite import copy_graph
from albireo.config import EngineConfig
from albireo.dtypes import kv_cache_dtype
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError
from albireo.execution.runner import Runner
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models.config import ModelConfig
from albireo.models.generation import GenerationDefaults, eos_token_ids, read_generation_defaults
from albireo.step import StepPlan, StepResult
from albireo.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)

#: Positions of prompts whose log-probabilities one step computes; a row of logits each.
MAX_PROMPT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything an engine is made of.

    Fields:
        program: of the first rank; other_ranks: of the others.
        pooler: gives hidden states in place of logits; None when the model's head has a shape that is not known.
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
    model: CpuModel | TensorParallelModel
    execute: Callable[[StepPlan], StepResult]
    load_s: float
    other_ranks: tuple[Program, ...] = ()
    pooler: CpuModel | TensorParallelModel | None = None

    @property
    def one_rank(self) -> CpuModel:
        """The model, for whoever looks at its calls one by one. Raises: ConfigError when several ranks compute it."""
        if not isinstance(self.model, CpuModel):
            raise ConfigError(
                f"{self.directory} runs on {1 + len(self.other_ranks)} ranks, and calls are looked at on one; use the "
                "checkpoint, or a build without --tp"
            )
        return self.model


def load(
    config: EngineConfig,
    *,
    show_progress: bool = False,
    levels: Sequence[str] | None = None,
    is_tuned: bool = True,
    on_progress: Callable[[float], None] | None = None,
) -> Loaded:
    """Make a model ready to run.

    Memory is planned before a weight is read; the tokenizer loads beside the weights.

    Args:
        levels: ISA levels to choose kernels from, all of which this machine must have; None: all it has.
        is_tuned: run with what was measured for this machine, where there is something; false: with the kernels' own
            numbers.
        on_progress: told the fraction of the weights that is ready, after each piece.
    Raises: ModelError, ConfigError, OutOfMemory; nothing is left allocated then.
    """
    started = time.perf_counter()
    directory = locate_model(config.model)
    with ThreadPoolExecutor(1, "albireo-tokenizer") as beside:
        tokenizer = None if config.skip_tokenizer_init else beside.submit(_tokenizer, config, directory)
        source = open_source(directory, config)
        config = source.adopt(config)
        model_config = source.model_config
        defaults = read_generation_defaults(source.config_directory)
        planned = plan_ranks(config, source, levels)
        memory = planned.memory
        if is_tuned:
            planned = planned.changed(lambda program: tuned(program, directory, config.num_threads)[0])
        with _progress(planned.programs, show_progress, on_progress) as advance:
            model, pooler = _models(config, source, planned, advance)
        eos = eos_token_ids(model_config, defaults)
        settings = EngineSettings.from_config(
            config,
            num_blocks=(memory.num_blocks,),
            max_model_len=memory.max_model_len,
            vocab_size=model_config.vocab_size,
            eos_token_ids=frozenset(eos),
            max_prompt_rows=MAX_PROMPT_ROWS,
            embedding_size=0 if pooler is None else model_config.hidden_size,
        )
        runner = Runner(model, model_config.vocab_size, config.block_size, pooler)
        return Loaded(
            config=config,
            directory=directory,
            model_config=model_config,
            defaults=defaults,
            eos_token_ids=eos,
            tokenizer=tokenizer.result() if tokenizer else None,
            program=planned.programs[0],
            other_ranks=planned.programs[1:],
            settings=settings,
            memory=memory,
            model=model,
            pooler=pooler,
            execute=runner.execute,
            load_s=time.perf_counter() - started,
        )


def _models(
    config: EngineConfig, source: ModelSource, planned: Planned, advance: Callable[[int], None]
) -> tuple[CpuModel | TensorParallelModel, CpuModel | TensorParallelModel | None]:
    """The model, and the one on its memory that gives hidden states."""
    memory, programs, poolers = planned.memory, planned.programs, planned.poolers
    graph, arenas, num_blocks = source.graph(memory.max_model_len), planned.arena_bytes, memory.num_blocks
    if len(programs) == 1:
        with source.weights(graph) as weights:
            threads = thread_pool(config.num_threads)
            model = CpuModel(programs[0], weights, threads, num_blocks, advance, arena_bytes=arenas[0])
        return model, model.sharing(poolers[0]) if poolers else None
    pool = rank_pool(config.num_threads, len(programs))
    ranks = TensorParallelModel(
        programs, lambda rank: source.weights(graph, rank), pool, num_blocks, advance, arena_bytes=arenas
    )
    return ranks, ranks.sharing(poolers) if poolers else None


@dataclass(frozen=True, slots=True)
class Planned:
    """What is to run, before a weight is read.

    Fields: programs: one a rank. poolers: those that give hidden states, one a rank too, or none.
    """

    programs: tuple[Program, ...]
    poolers: tuple[Program, ...]
    memory: MemoryPlan

    @property
    def arena_bytes(self) -> tuple[int, ...]:
        """Of each rank, the activations of either of its programs."""
        return arena_bytes(self.programs, self.poolers)

    def changed(self, change: Callable[[Program], Program]) -> Planned:
        """The same with other programs."""
        return Planned(tuple(map(change, self.programs)), tuple(map(change, self.poolers)), self.memory)


def arena_bytes(programs: Sequence[Program], poolers: Sequence[Program]) -> tuple[int, ...]:
    """Of each rank, the activations of either of its programs."""
    own = tuple(program.arena_bytes for program in programs)
    return tuple(max(pair) for pair in zip(own, [each.arena_bytes for each in poolers] or own, strict=True))


def plan(config: EngineConfig, source: ModelSource, levels: Sequence[str] | None = None) -> tuple[Program, MemoryPlan]:
    """plan_ranks(), and of its programs the first rank's."""
    planned = plan_ranks(config, source, levels)
    return planned.programs[0], planned.memory


def plan_ranks(config: EngineConfig, source: ModelSource, levels: Sequence[str] | None = None) -> Planned:
    """Compile the programs of each rank and share out the memory among all, without touching a weight.

    Args: config: as source.adopt() gives it. levels: see load().

    Raises: ConfigError, OutOfMemory, UnsupportedModel; EngineFileError when a built source does not fit.
    """
    limit = source.model_config.max_position_embeddings
    model_len = config.max_model_len or source.default_model_len
    if model_len > limit:
        raise ConfigError(f"max_model_len={model_len} exceeds the model's max_position_embeddings={limit}; lower it")
    with guard(source):
        graph = source.graph(model_len)
        programs = tuple(compile_program(graph, config, model_len, part, levels) for part in source.parts)
        for rank, program in enumerate(programs):
            source.check(program, rank)
        poolers = compile_poolers(graph, programs, config, model_len, source.parts, levels)
    memory = plan_memory(
        config,
        weight_bytes=sum(constant_offsets(program.constants)[1] for program in programs),
        arena_bytes=sum(arena_bytes(programs, poolers)),
        block_bytes=sum(kv_block_bytes(program.kv) for program in programs),
        model_len=model_len,
        machine=machine_bytes(),
    )
    return Planned(programs, poolers, memory)


def compile_poolers(
    graph: Graph,
    programs: Sequence[Program],
    config: EngineConfig,
    model_len: int,
    parts: Sequence[Part | None],
    levels: Sequence[str] | None = None,
) -> tuple[Program, ...]:
    """The programs that give hidden states, on the constants of these; none when the head has an unknown shape."""
    graph = copy_graph(graph)
    refusals = hidden_states.run(graph).refusals
    found = () if refusals else tuple(compile_program(graph, config, model_len, part, levels) for part in parts)
    if [each.constants for each in found] != [each.constants for each in programs]:
        _LOG.warning("embeddings cannot be computed: %s", "; ".join(r.reason for r in refusals) or "other weights")
        return ()
    return found


def compile_program(
    graph: Graph,
    config: EngineConfig,
    model_len: int,
    part: Part | None = None,
    levels: Sequence[str] | None = None,
) -> Program:
    """Compile for the steps that config allows, for one rank or for one that is alone.

    Args: levels: ISA levels to choose kernels from; None: those of this machine.
    Raises: UnsupportedModel; ConfigError when config leaves out a pass that cannot be, or the model cannot be cut so.
    """
    seqs, tokens = config.step_limits.max_num_seqs, config.step_limits.max_num_batched_tokens
    num_rows = tokens if hidden_states.OUTPUT in graph.outputs else seqs + MAX_PROMPT_ROWS
    return compile_graph(
        graph,
        CpuCatalog(isa_levels() if levels is None else levels),
        maxima={"T": tokens, "R": num_rows, "G": seqs},
        block_size=config.block_size,
        max_positions=model_len,
        part=part,
        passes=passes_without(config.without),
        kv_dtype=kv_cache_dtype(config.kv_cache_dtype),
    )


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
    if not (show and sys.stderr.isatty()):
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="B", unit_scale=True, desc="Loading weights", leave=False) as bar:

        def advance(num_bytes: int) -> None:
            bar.update(num_bytes)

        yield advance
