"""Where a model comes from: a checkpoint, or an engine directory that was built from one.

Opened by load.py and by whatever else looks at a model. Both kinds give a config, a graph and weights; what is done
with them does not differ. Reads no weight until asked.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from albireo.api.sources.asked_precision import asked_precision
from albireo.api.sources.checkpoint_source import CheckpointSource
from albireo.api.sources.engine_source import EngineSource
from albireo.api.sources.overrides import overridden, said
from albireo.api.sources.projector_place import beside
from albireo.artifact.layout import BUILD_COMMAND, MANIFEST, PROGRAM
from albireo.artifact.reader import hinting, is_engine_directory
from albireo.artifact.record import guarded
from albireo.backends.cpu.machine import name_lost_pages
from albireo.backends.cpu.nodes import numa_nodes
from albireo.backends.cpu.pack import ALIGN
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.compiler.passes.shard import Part
from albireo.config import EngineConfig
from albireo.errors import ConfigError, Corrupt, TargetMismatch
from albireo.execution.pooled_head import PooledHead
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models.config import ModelConfig
from albireo.models.settings.pooling_rule import PoolingRule


class ModelSource(Protocol):
    """A model that is not loaded yet.

    Fields:
        directory: of the model; config_directory and tokenizer_directory are where those files lie.
        default_model_len: longest sequence when nobody asks for one.
        parts: what to compile for each rank; see compiler.passes.shard.
        shares_weights: engines of this machine have them in memory together.
        vision_directory: where the tensors of what reads images are; None: there are none.
        perception_problem: why what lies beside a model, and would read images or sounds, does not; empty: nothing lies
            there, or it does.
        pooling_rule: what its files say of embeddings, or of scores.
        quantization: the scheme that its matrices are rounded to; None: they are as they were.
    """

    directory: Path
    config_directory: Path
    tokenizer_directory: Path
    model_config: ModelConfig
    default_model_len: int
    parts: tuple[Part | None, ...]
    shares_weights: bool
    vision_directory: Path | None
    perception_problem: str
    pooling_rule: PoolingRule
    quantization: str | None

    def adopt(self, config: EngineConfig) -> EngineConfig:
        """The settings it runs with, where some were decided when it was built."""
        ...

    def pooled_head(self) -> PooledHead:
        """What is computed behind pooling. Raises: ModelError."""
        ...

    def graph(self, model_len: int) -> Graph:
        """The base graph for sequences of up to model_len tokens, of the whole model. Others have it, too, so nobody
        changes it."""
        ...

    def check(self, program: Program, rank: int = 0) -> None:
        """Raises: EngineFileError when a program compiled from graph() does not fit what is stored."""
        ...

    def weights(self, graph: Graph, rank: int = 0) -> AbstractContextManager[Weights | StoredWeights]:
        """What the CpuModel of a rank fills its constants from."""
        ...


def _may_share_pages() -> bool:
    """Whether engines may map the weights of a file. Not among NUMA nodes, where each reads what is near it; nor where
    the system's pages are larger than what constants are aligned to (16 or 64 KiB on some Arm systems)."""
    return len(set(numa_nodes().values())) <= 1 and mmap.PAGESIZE <= ALIGN


def open_source(directory: Path, config: EngineConfig) -> ModelSource:
    """The source in a directory. Raises: ModelError; ConfigError for what only an engine directory can keep."""
    name_lost_pages()
    if is_engine_directory(directory):
        for name in ("quantization", "quantization_head"):
            if getattr(config, name) is not None:
                raise TargetMismatch(
                    f"{directory}: {name} is decided when a directory is built; leave it out, or build with it: "
                    f"albireo build MODEL -o DIR --{name.replace('_', '-')} {getattr(config, name)}"
                )
        for name, overrides in (
            ("hf_overrides", config.hf_overrides),
            ("mm_processor_kwargs", config.mm_processor_kwargs),
        ):
            if overrides is not None:
                raise TargetMismatch(
                    f"{directory}: {name} is decided when a directory is built; leave it out, or build with it: "
                    f"albireo build MODEL -o DIR --{name.replace('_', '-')} '{said(overrides)}'"
                )
        beside(directory, config.mmproj)
        return EngineSource(
            directory,
            config.dtype,
            config.verify_hashes,
            config.tensor_parallel_size,
            config.tp_invariant,
            config.pin_numerics,
            shares_weights=config.data_parallel_size > 1 and _may_share_pages(),
        )
    if (directory / PROGRAM).is_file() and not (directory / "config.json").exists():
        raise Corrupt(
            f"{directory}: is an engine directory without {MANIFEST}: a build that did not end, or a damaged one; "
            f"remove it, and build again: {BUILD_COMMAND} -o {directory}"
        )
    for name, is_asked in (("verify_hashes", config.verify_hashes), ("pin_numerics", config.pin_numerics)):
        if is_asked:
            raise ConfigError(
                f"{name}: {directory} is a checkpoint, which was never built and has neither hashes nor kernels; leave "
                "it out, or build an engine directory: albireo build MODEL -o DIR"
            )
    directory = overridden(directory, config)
    precision = asked_precision(directory, config)
    ranks = config.tensor_parallel_size or 1
    return CheckpointSource(directory, config.dtype, ranks, config.tp_invariant, precision, config.mmproj)


@contextmanager
def guard(source: ModelSource) -> Iterator[None]:
    """Round code that compiles a source's graph: a graph that was read from a file may trip it up."""
    if not isinstance(source, EngineSource):
        yield
        return
    with hinting(source.directory), guarded(str(source.directory)):
        try:
            yield
        except ConfigError as error:
            # it was cut so when it was built
            raise Corrupt(f"{source.directory}: {error}") from error
