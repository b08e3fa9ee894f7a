"""What is verified, and against what: an engine directory and the checkpoint it was built from.

Called by run.py. Refuses another checkpoint before anything is computed. Reads weights only to hash them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from albireo.api.machine.devices import planning_device
from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.api.sources.engine_source import EngineSource
from albireo.api.sources.locate import locate_model
from albireo.api.sources.overrides import overridden
from albireo.artifact import layout
from albireo.artifact.manifest import FileEntry
from albireo.artifact.reader import EngineFiles, is_engine_directory
from albireo.artifact.writer import file_entry
from albireo.backends.cuda.catalog import catalog_of
from albireo.compiler.passes.shard import parts
from albireo.compiler.pipeline import Pass, passes_for, passes_without, shard_pass
from albireo.config import EngineConfig
from albireo.errors import ConfigError
from albireo.graph.node import Graph
from albireo.models.checkpoint.weights import weight_files
from albireo.models.config import ModelConfig
from albireo.models.gguf.files import is_gguf
from albireo.quantization.schemes import Precision


@dataclass(frozen=True, slots=True)
class Subject:
    """Both sides, opened.

    Fields:
        files: the engine directory, validated but for its weights.
        config: of the checkpoint, in the compute type of the build; graph: what that config means, in the precision of
            the build.
        device: that it was built for, and is looked at on.
    """

    directory: Path
    checkpoint: Path
    files: EngineFiles
    config: ModelConfig
    graph: Graph
    precision: Precision
    device: Literal["cpu", "cuda"]

    @property
    def dtype(self) -> str:
        return self.files.manifest.options.dtype

    @property
    def num_ranks(self) -> int:
        return len(self.files.ranks)

    @property
    def passes(self) -> tuple[Pass, ...]:
        """What rewrote the graph of the first rank."""
        options = self.files.manifest.options
        (first, *_) = parts(options.tensor_parallel_size, options.tp_invariant)
        is_gpu = self.device == "cuda"
        catalog = catalog_of(self.files.program) if is_gpu else planning_device(EngineConfig(device="cpu")).catalog()
        passes = passes_for(catalog.abilities, passes_without(options.without))
        return (*(() if first is None else (shard_pass(first),)), *passes)

    @property
    def model_len(self) -> int:
        """Longest sequence of the build; the graph may depend on it."""
        return self.files.manifest.options.max_model_len


def open_subject(directory: Path, against: str, note: Callable[[str], None]) -> Subject:
    """Open both sides.

    Args: note: called with the name of each file that is about to be hashed.
    Raises: ConfigError when directory is no engine directory, or was not built from this checkpoint, naming the file
        that differs; EngineFileError for a damaged directory; ModelError.
    Cost: one pass over the checkpoint, about a second a GB.
    """
    if not is_engine_directory(directory):
        raise ConfigError(
            f"{directory} is no engine directory, so there is nothing to verify; "
            f"build one: {layout.BUILD_COMMAND} -o DIR"
        )
    checkpoint = locate_model(against)
    if is_engine_directory(checkpoint):
        raise ConfigError(
            f"{checkpoint} is an engine directory too; give the checkpoint that {directory} is built from"
        )
    engine = EngineSource(directory, "auto", verify_hashes=False)
    if engine.model_config.pooling is not None:
        raise ConfigError(
            f"{directory}: verify compares what a model writes, and this one {engine.pooling_rule.says}; compare its "
            "answers with the checkpoint's, which are the same to the bit"
        )
    files = engine.files
    checkpoint = overridden(checkpoint, files.manifest.options)
    _check_source(files, checkpoint, note)
    options = files.manifest.options
    precision = Precision(options.quantization, options.quantization_head)
    source = CheckpointSource(checkpoint, options.dtype, precision=precision)
    graph = source.graph(options.max_model_len)
    device = engine.device_for("auto")
    return Subject(directory, checkpoint, files, source.model_config, graph, source.precision, device)


def _check_source(files: EngineFiles, checkpoint: Path, note: Callable[[str], None]) -> None:
    wanted = {name: (entry, name) for name, entry in files.manifest.source.items()}
    in_one = is_gguf(checkpoint)
    places = _gguf_files(files, checkpoint) if in_one else {}
    for name, entry in files.manifest.files.items():
        folder, _, copied = name.partition("/")
        if folder in (layout.TOKENIZER, layout.CONFIG) and not in_one:
            wanted[copied] = (entry, name)
    for name, (entry, listed) in sorted(wanted.items(), key=lambda item: item[1][0].size):
        note(name)
        problem = _difference(places[name] if in_one else checkpoint / name, entry, listed)
        if problem:
            raise ConfigError(
                f"{files.directory} was not built from {checkpoint}: {name} {problem}. Give the one it was built "
                f"from, or {layout.rebuild_hint(files.directory)}"
            )


def _gguf_files(files: EngineFiles, checkpoint: Path) -> dict[str, Path]:
    """Which file each of the manifest is, under any name. Raises: ConfigError for another number of parts."""
    listed, there = sorted(files.manifest.source), weight_files(checkpoint)
    if len(listed) != len(there):
        raise ConfigError(
            f"{files.directory} was not built from {checkpoint}: manifest.json lists {len(listed)} GGUF files, and "
            f"there are {len(there)}. Give those it was built from, or {layout.rebuild_hint(files.directory)}"
        )
    return dict(zip(listed, there, strict=True))


def _difference(path: Path, entry: FileEntry, listed: str) -> str:
    """How a file of the checkpoint differs from what the manifest says of it; nothing when it does not."""
    if not path.is_file():
        return "is missing there"
    size = path.stat().st_size
    if size != entry.size:
        return f"has {size} bytes there, manifest.json says {entry.size} ({listed})"
    digest = file_entry(path).sha256
    if digest == entry.sha256:
        return ""
    return f"has sha256 {digest[:16]}… there, manifest.json says {entry.sha256[:16]}…"
