"""Model directory -> ready engine parts: config, graph, program, memory, weights, tokenizer.

Called by llm.py, async_llm.py and the bench. The composition root: the one place that knows every room.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albireo.api.locate import locate_model
from albireo.api.memory import MemoryPlan, machine_bytes, plan_memory
from albireo.api.source import ModelSource, guard, open_source
from albireo.api.tuning import tuned
from albireo.artifact.reader import tokenizer_directory
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.model import CpuModel, kv_block_bytes
from albireo.backends.cpu.pack import constant_offsets
from albireo.compiler.pipeline import compile_graph
from albireo.config import EngineConfig
from albireo.engine.settings import EngineSettings
from albireo.errors import ConfigError
from albireo.execution.runner import Runner
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models.config import ModelConfig
from albireo.models.generation import GenerationDefaults, eos_token_ids, read_generation_defaults
from albireo.step import StepPlan, StepResult
from albireo.text.tokenizer import Tokenizer

#: Positions of prompts whose log-probabilities one step computes; a row of logits each.
MAX_PROMPT_ROWS = 64


@dataclass(frozen=True, slots=True)
class Loaded:
    """Everything an engine is made of. load_s: seconds it took, weights included."""

    config: EngineConfig
    directory: Path
    model_config: ModelConfig
    defaults: GenerationDefaults
    eos_token_ids: tuple[int, ...]
    tokenizer: Tokenizer | None
    program: Program
    settings: EngineSettings
    memory: MemoryPlan
    model: CpuModel
    execute: Callable[[StepPlan], StepResult]
    load_s: float


def load(config: EngineConfig, *, show_progress: bool = False, is_tuned: bool = True) -> Loaded:
    """Make a model ready to run.

    Memory is planned before a weight is read; the tokenizer loads beside the weights.
    Args: is_tuned: run with what was measured for this machine, where there is something; false: with the defaults.
    Raises: ModelError, ConfigError, OutOfMemory; nothing is left allocated then.
    """
    started = time.perf_counter()
    directory = locate_model(config.model)
    with ThreadPoolExecutor(1, "albireo-tokenizer") as beside:
        tokenizer = None if config.skip_tokenizer_init else beside.submit(_tokenizer, config, directory)
        source = open_source(directory, config)
        model_config = source.model_config
        defaults = read_generation_defaults(source.config_directory)
        program, memory = plan(config, source)
        if is_tuned:
            program, _ = tuned(program, directory, config.num_threads)
        with (
            source.weights(source.graph(memory.max_model_len)) as weights,
            _progress(program, show_progress) as advance,
        ):
            model = CpuModel(program, weights, thread_pool(config.num_threads), memory.num_blocks, advance)
        eos = eos_token_ids(model_config, defaults)
        settings = EngineSettings.from_config(
            config,
            num_blocks=(memory.num_blocks,),
            max_model_len=memory.max_model_len,
            vocab_size=model_config.vocab_size,
            eos_token_ids=frozenset(eos),
            max_prompt_rows=MAX_PROMPT_ROWS,
        )
        runner = Runner(model, model_config.vocab_size, config.block_size)
        return Loaded(
            config=config,
            directory=directory,
            model_config=model_config,
            defaults=defaults,
            eos_token_ids=eos,
            tokenizer=tokenizer.result() if tokenizer else None,
            program=program,
            settings=settings,
            memory=memory,
            model=model,
            execute=runner.execute,
            load_s=time.perf_counter() - started,
        )


def plan(config: EngineConfig, source: ModelSource) -> tuple[Program, MemoryPlan]:
    """Compile the program and share out the memory, without touching a weight.

    Raises: ConfigError, OutOfMemory, UnsupportedModel; EngineFileError when a built source does not fit.
    """
    limit = source.model_config.max_position_embeddings
    model_len = config.max_model_len or source.default_model_len
    if model_len > limit:
        raise ConfigError(f"max_model_len={model_len} exceeds the model's max_position_embeddings={limit}; lower it")
    with guard(source):
        program = compile_program(source.graph(model_len), config, model_len)
        source.check(program)
    memory = plan_memory(
        config,
        weight_bytes=constant_offsets(program.constants)[1],
        arena_bytes=program.arena_bytes,
        block_bytes=kv_block_bytes(program.kv),
        model_len=model_len,
        machine=machine_bytes(),
    )
    return program, memory


def compile_program(graph: Graph, config: EngineConfig, model_len: int) -> Program:
    """Compile for this machine's kernels and the steps that config allows. Raises: UnsupportedModel."""
    rows = config.max_num_seqs + MAX_PROMPT_ROWS
    return compile_graph(
        graph,
        CpuCatalog(isa_levels()),
        maxima={"T": config.max_num_batched_tokens, "R": rows, "G": config.max_num_seqs},
        block_size=config.block_size,
        max_positions=model_len,
    )


def _tokenizer(config: EngineConfig, directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(config.tokenizer or tokenizer_directory(directory))


@contextmanager
def _progress(program: Program, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of the weights, on a terminal; what to call with the bytes just packed."""
    if not (show and sys.stderr.isatty()):
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=program.weight_bytes, unit="B", unit_scale=True, desc="Loading weights", leave=False) as bar:

        def advance(num_bytes: int) -> None:
            bar.update(num_bytes)

        yield advance
