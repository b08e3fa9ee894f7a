"""Checkpoint -> engine directory: compile, pack, write, and never leave half of it.

Called by users (albireo.build) and by cli/build.py. What is written and why: docs/engine-directory.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import albireo
from albireo.api.machine.memory import machine_bytes
from albireo.api.media.perception import stored_vision
from albireo.api.programs import compile_program
from albireo.api.progress import bytes_bar
from albireo.api.sources.asked_precision import asked_precision
from albireo.api.sources.checkpoint_source import CheckpointSource, with_whole_prompts
from albireo.api.sources.locate import locate_model
from albireo.api.sources.overrides import overridden, said
from albireo.api.sources.pooled_head import stored_head
from albireo.api.sources.recommended import recommended
from albireo.api.tokenizer import gguf_as_files, open_tokenizer
from albireo.artifact import layout
from albireo.artifact.graph_json import graph_to_json
from albireo.artifact.manifest import FileEntry, Manifest, Options, manifest_to_json
from albireo.artifact.program_json import StoredConstant, program_to_json, rows_digest
from albireo.artifact.reader import MAX_FILE_BYTES, is_engine_directory
from albireo.artifact.writer import EngineWriter, engine_writer, file_entry
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import target_levels, thread_pool
from albireo.backends.cpu.stored import Image, empty_image, image_bytes, pack_image
from albireo.backends.cuda.catalog import CudaCatalog, capability_of, is_gpu_target
from albireo.backends.weights import Weights
from albireo.compiler.pipeline import optional_passes
from albireo.config import BuildConfig, EngineConfig
from albireo.errors import ConfigError, ModelError, OutOfMemory, ResourceError, short
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.graph.show import Totals, show_program, show_report, totals
from albireo.json_file import read_bytes
from albireo.models.checkpoint.weights import weight_files
from albireo.models.config import ModelConfig
from albireo.models.gguf.files import is_gguf
from albireo.models.settings.context import check_context
from albireo.text.vocabularies import vocabulary_files

_GIB = 1 << 30


Command = Literal["generate", "transcribe", "serve"]


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made.

    Fields:
        totals: ops before, calls and barriers after, bytes per token.
        unfused: the same of the program without any fusion.
        levels: ISA levels the kernels were chosen from, best first.
        num_bytes: of the directory; weight_bytes: of the weights in it.
        build_s: seconds it took. command: that a directory of such a model is for.
    """

    directory: Path
    totals: Totals
    unfused: Totals
    levels: tuple[str, ...]
    dtype: str
    num_bytes: int
    weight_bytes: int
    build_s: float
    command: Command = "generate"


def build(
    model: str | Path | None,
    out: str | Path,
    config: BuildConfig | None = None,
    *,
    show_progress: bool = False,
    reports: Mapping[str, bytes] = MappingProxyType({}),
) -> BuildResult:
    """Compile a model ahead of time into an engine directory, which `LLM(out)` and every command run.

    Args:
        model: directory in Hugging Face layout, a hub name, or None for the bundled model.
        out: where; it must be free, empty, or, with config.force, an engine directory.
        show_progress: a bar on stderr, where that is a terminal.
        reports: files by name that are to lie beside what is built, such as how the checkpoint was made.

    Raises: ModelError, ConfigError, OutOfMemory, ResourceError; out is as it was then.
    Cost: about 1.5 s a GB of weights beside what the disk takes; the packed model is in memory once.
    """
    started, config = time.perf_counter(), BuildConfig() if config is None else config
    if not isinstance(config, BuildConfig):
        raise ConfigError(f"config must be a BuildConfig, got {type(config).__name__}")
    target = _directory(out)
    is_gpu = is_gpu_target(config.target)
    levels = (config.target,) if is_gpu else target_levels(config.target)
    directory = locate_model(None if model is None else str(model))
    if is_engine_directory(directory):
        raise ModelError(f"{directory} is an engine directory already; give the checkpoint it was built from")
    directory = overridden(directory, config)
    precision = asked_precision(directory, config)
    ranks = config.tensor_parallel_size
    source = CheckpointSource(directory, config.dtype, ranks, config.tp_invariant, precision, config.mmproj)
    # what cannot be loaded is not built
    recommended(source.config_directory)
    if not is_gguf(directory) and vocabulary_files(directory):
        open_tokenizer(directory)
    model_len = _model_len(config, source)
    engine = EngineConfig(
        device="cuda" if is_gpu else "cpu",
        max_model_len=model_len,
        profile=config.profile,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        without=config.without,
        kv_cache_dtype=config.kv_cache_dtype,
    )
    if not source.pooling_rule.is_causal or source.model_config.takes_whole_prompts:
        engine = with_whole_prompts(engine, model_len)
    graph = source.graph(model_len)
    catalog = CudaCatalog(capability_of(config.target)) if is_gpu else CpuCatalog(levels)
    programs = tuple(compile_program(graph, engine, model_len, part, catalog) for part in source.parts)
    sizes = [image_bytes(program.constants) for program in programs]
    bare = replace(engine, without=optional_passes())
    unfused = totals(compile_program(graph, bare, model_len, source.parts[0], catalog))
    with engine_writer(target, config.force) as writer:
        _check_room(sizes, target)
        with bytes_bar("Building", 2 * sum(sizes), is_wanted=show_progress) as advance:
            options = Options(
                source.model_config.dtype,
                model_len,
                engine.step_limits.max_num_seqs,
                engine.step_limits.max_num_batched_tokens,
                engine.block_size,
                config.tensor_parallel_size,
                config.tp_invariant or config.tensor_parallel_size > 1,
                config.profile,
                config.without,
                source.quantization,
                config.quantization_head,
                config.kv_cache_dtype,
                config.hf_overrides,
                config.mm_processor_kwargs,
            )
            for name, data in reports.items():
                writer.write_beside(name, data)
            report = _report(programs[0], unfused, options, levels)
            _write(writer, source, graph, programs, options, levels, report, advance)
    return BuildResult(
        directory=target,
        totals=totals(programs[0]),
        unfused=unfused,
        levels=levels,
        dtype=options.dtype,
        num_bytes=sum(entry.size for entry in writer.files.values()),
        weight_bytes=sum(program.weight_bytes for program in programs),
        build_s=time.perf_counter() - started,
        command=_command(source.model_config),
    )


def _command(config: ModelConfig) -> Command:
    if config.blocks.sound_positions:
        return "transcribe"
    return "generate" if config.pooling is None else "serve"


def _directory(out: Any) -> Path:
    """Raises: ConfigError for what can be no directory's name."""
    if not isinstance(out, str | Path):
        raise ConfigError(f"out must be the name of a directory, got {type(out).__name__}")
    try:
        target = Path(out).expanduser()
        target.stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # who makes it says so
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero in it, the home of nobody
        raise ConfigError(f"out={short(str(out))} can be no directory: {error!s:.200}") from None
    return target


def _model_len(config: BuildConfig, source: CheckpointSource) -> int:
    model_len = config.max_model_len or source.default_model_len
    check_context(source.model_config, model_len)
    return model_len


def _check_room(sizes: Sequence[int], target: Path) -> None:
    """sizes: packed bytes of each rank. Raises: OutOfMemory, ResourceError, before minutes are spent in vain."""
    largest, need, memory = max(sizes), sum(sizes), machine_bytes()
    if largest > memory:
        raise OutOfMemory(f"packing needs {largest / _GIB:.2f} GiB, the machine has {memory / _GIB:.2f} GiB")
    free = shutil.disk_usage(os.path.abspath(target.parent)).free
    if need > free:
        raise ResourceError(
            f"{target}: needs {need / _GIB:.2f} GiB on disk, {free / _GIB:.2f} GiB are free; nothing was changed. "
            "Make room or choose another place with -o"
        )


def _write(
    writer: EngineWriter,
    source: CheckpointSource,
    graph: Graph,
    programs: Sequence[Program],
    options: Options,
    levels: tuple[str, ...],
    report: str,
    advance: Callable[[int], None],
) -> None:
    """Every file; ranks are packed one after another, so that one is in memory at a time."""
    with ThreadPoolExecutor(1, "albireo-hash") as beside:
        entries = beside.submit(_source_entries, source.directory)
        stored = []
        for rank, program in enumerate(programs):
            with source.weights(graph, rank) as weights:
                image = _image(program, weights, is_gpu_target(levels[0]), advance)
            hashes = beside.submit(_stored, program, image)
            writer.write_large(layout.weights_name(rank), image.data, advance)
            stored.append(hashes.result())
            del image
        writer.write(layout.GRAPH, layout.json_bytes(graph_to_json(graph)))
        writer.write(layout.TARGET, layout.json_bytes(_target(levels)))
        writer.write(layout.REPORT, report.encode())
        _copy(writer, source.directory, source.config_directory)
        head = stored_head(source.pooling_rule, source.directory)
        if head:
            writer.write(f"{layout.CONFIG}/{layout.POOLED_HEAD}", head)
        vision = stored_vision(source)
        if vision:
            writer.write_large(layout.VISION, memoryview(vision), lambda _: None)
            del vision
        writer.write(layout.PROGRAM, layout.json_bytes(program_to_json(programs, stored)))
        manifest = Manifest(
            albireo.__version__, source.model_config.model_type, options, entries.result(), dict(writer.files)
        )
    writer.commit(layout.json_bytes(manifest_to_json(manifest)))


def _image(program: Program, weights: Weights, is_gpu: bool, advance: Callable[[int], None]) -> Image:
    """All constants as the kernels of a program read them."""
    if not is_gpu:
        return pack_image(thread_pool(None), program.constants, weights, advance)
    if find_spec("torch") is None:
        raise ConfigError("target=cuda: torch is not installed; pip install 'albireo[cuda]', building needs no GPU")
    from albireo.backends.cuda.stored import write_constants

    image = empty_image(program.constants)
    write_constants(program.constants, image.offsets, weights, image.memory.view(), advance)
    return image


def _source_entries(directory: Path) -> dict[str, FileEntry]:
    return {path.name: file_entry(path) for path in weight_files(directory)}


def _stored(program: Program, image: Image) -> dict[str, StoredConstant]:
    stored = {}
    for name, constant in program.constants.items():
        offset = image.offsets[name]
        digest = layout.sha256(image.data[offset : offset + constant.num_bytes])
        stored[name] = StoredConstant(constant, rows_digest(constant), offset, digest)
    return stored


def _target(levels: tuple[str, ...]) -> dict[str, Any]:
    return {"byte_order": sys.byteorder, "isa_levels": list(levels), "machine": platform.machine()}


def _report(program: Program, unfused: Totals, options: Options, levels: tuple[str, ...]) -> str:
    return "\n".join(
        [
            "# What the compiler did",
            "",
            f"Computed in {options.dtype}, for steps of up to {options.max_num_batched_tokens} tokens of "
            f"{options.max_num_seqs} sequences of up to {options.max_model_len} tokens{_ranks(options)}, "
            f"with kernels of {', '.join(levels)}.",
            *([] if options.hf_overrides is None else [f"config.json says otherwise: {said(options.hf_overrides)}"]),
            *(
                []
                if options.mm_processor_kwargs is None
                else [f"What prepares pictures and videos says otherwise: {said(options.mm_processor_kwargs)}"]
            ),
            f"Passes left out: {', '.join(options.without) or 'none'}. Without any fusion it would be: {unfused}",
            "",
            "```",
            show_report(program),
            "```",
            "",
            "# The program",
            "",
            "```",
            show_program(program),
            "```",
            "",
        ]
    )


def _ranks(options: Options) -> str:
    if options.tensor_parallel_size > 1:
        return f", on {options.tensor_parallel_size} ranks; this is rank 0, the others differ in their weights"
    return ", sums in the order of several ranks" if options.tp_invariant else ""


def _copy(writer: EngineWriter, directory: Path, config_directory: Path) -> None:
    """Tokenizer and configuration, verbatim; a name no directory may hold stays behind. Of a GGUF file, as files; of a
    vocabulary that leaves much to a class, as a tokenizer.json, which says all.
    """
    if is_gguf(directory):
        tokenizer, configuration = gguf_as_files(directory)
        if config_directory != directory:  # which says what it is together with its projector
            configuration = {path.name: path.read_bytes() for path in config_directory.glob("*.json")}
        for folder, files in ((layout.TOKENIZER, tokenizer), (layout.CONFIG, configuration)):
            for name, data in files.items():
                writer.write(f"{folder}/{name}", data)
        return
    vocabulary = vocabulary_files(directory)
    texts: tuple[str, ...] = (*vocabulary, *layout.TOKENIZER_FILES)
    if not all(layout.is_known_file(f"{layout.TOKENIZER}/{name}") for name in vocabulary):
        texts = ()
        for name, data in open_tokenizer(directory).to_files().items():
            writer.write(f"{layout.TOKENIZER}/{name}", data)
    for folder, patterns in ((layout.TOKENIZER, texts), (layout.CONFIG, layout.CONFIG_FILES)):
        for pattern in patterns:
            for path in _matches(directory, pattern):
                name = f"{folder}/{path.relative_to(directory).as_posix()}"
                if layout.is_known_file(name):
                    writer.write(name, read_bytes(path, MAX_FILE_BYTES))


def _matches(directory: Path, pattern: str) -> list[Path]:
    """Also what is there and cannot be read, so that nothing is left out in silence: links to nowhere, pipes, folders
    that are called as a file."""
    if "*" not in pattern:
        return [path] if os.path.lexists(path := directory / pattern) else []
    return sorted(path for path in directory.glob(pattern) if path.suffix or not path.is_dir())
