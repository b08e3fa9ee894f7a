"""Where a model comes from: a checkpoint, or an engine directory that was built from one.

Called by load.py, build.py and the commands that look at models. Both kinds give a config, a graph and weights; what
is done with them does not differ. Reads no weight until asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import albireo
from albireo.artifact.graph_fit import check_fit
from albireo.artifact.layout import BUILD_COMMAND, MANIFEST, PROGRAM, rebuild_hint
from albireo.artifact.program_json import StoredConstant, rows_digest
from albireo.artifact.reader import EngineFiles, hinting, is_engine_directory, open_engine, tokenizer_directory
from albireo.artifact.record import guarded
from albireo.backends.cuda.catalog import LEVEL as CUDA_LEVEL
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part, parts
from albireo.compiler.pipeline import passes_without
from albireo.config import EngineConfig
from albireo.dtypes import compute_dtype
from albireo.encodings import encoding
from albireo.errors import ConfigError, Corrupt, TargetMismatch
from albireo.graph.node import Graph
from albireo.graph.program import PackedConstant, Program
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.config import ModelConfig
from albireo.models.weights import Checkpoint, weight_files
from albireo.quantization.schemes import Precision

_LOG = logging.getLogger(__name__)


class ModelSource(Protocol):
    """A model that is not loaded yet.

    Fields:
        directory: of the model; config_directory and tokenizer_directory are where those files lie.
        default_model_len: longest sequence when nobody asks for one.
        parts: what to compile for each rank; see compiler.passes.shard.
    """

    directory: Path
    config_directory: Path
    tokenizer_directory: Path
    model_config: ModelConfig
    default_model_len: int
    parts: tuple[Part | None, ...]

    def adopt(self, config: EngineConfig) -> EngineConfig:
        """The settings it runs with, where some were decided when it was built."""
        ...

    def graph(self, model_len: int) -> Graph:
        """The base graph for sequences of up to model_len tokens, of the whole model."""
        ...

    def check(self, program: Program, rank: int = 0) -> None:
        """Raises: EngineFileError when a program compiled from graph() does not fit what is stored."""
        ...

    def weights(self, graph: Graph, rank: int = 0) -> AbstractContextManager[Weights | StoredWeights]:
        """What the CpuModel of a rank fills its constants from."""
        ...


class CheckpointSource:
    """A directory in Hugging Face layout, or a GGUF file."""

    def __init__(
        self,
        directory: Path,
        dtype: str,
        num_ranks: int = 1,
        tp_invariant: bool = False,
        precision: Precision | None = None,
    ) -> None:
        self.parts = parts(num_ranks, tp_invariant)
        self.model_config = load_config(directory).with_dtype(dtype)
        stored = _stored_encodings(directory, self.model_config.dtype)
        self.precision = replace(precision or Precision(), stored=stored)
        self.directory = self.config_directory = self.tokenizer_directory = directory
        self.default_model_len = self.model_config.max_position_embeddings

    def adopt(self, config: EngineConfig) -> EngineConfig:
        return config

    def graph(self, model_len: int) -> Graph:
        graph = build_graph(self.model_config, model_len)
        if not self.precision.is_plain:
            choose_precision.run(graph, self.precision.of)
        return graph

    def check(self, program: Program, rank: int = 0) -> None:
        """Nothing is stored, so everything fits."""

    @contextmanager
    def weights(self, graph: Graph, rank: int = 0) -> Iterator[Weights]:
        with open_checkpoint(self.directory, graph) as checkpoint:
            if rank == 0:
                for note in checkpoint.notes:
                    _LOG.warning("%s: %s", self.directory, note)
            yield checkpoint


class EngineSource:
    """An engine directory, validated; its weights are hashed too when asked.

    Args: num_ranks: asked for; None: as many as it was built for.
    Raises: EngineFileError; TargetMismatch for another dtype, or other ranks, than it was built for.
    """

    def __init__(
        self,
        directory: Path,
        dtype: str,
        verify_hashes: bool,
        num_ranks: int | None = None,
        tp_invariant: bool = False,
        pin_numerics: bool = False,
    ) -> None:
        with hinting(directory):
            self.files: EngineFiles = open_engine(directory)
            self.directory = directory
            self._pins_numerics = pin_numerics
            self._left_out_now: tuple[str, ...] = ()
            self.config_directory, self.tokenizer_directory = self.files.config, tokenizer_directory(directory)
            options = self.files.manifest.options
            self.parts = parts(options.tensor_parallel_size, options.tp_invariant)
            self._check_dtype(dtype)
            self._check_ranks(num_ranks, tp_invariant)
            self.model_config = load_config(self.config_directory, options.dtype).with_dtype(options.dtype)
            self.default_model_len = min(options.max_model_len, self.model_config.max_position_embeddings)
            if self.model_config.model_type != self.files.manifest.model_type:
                raise TargetMismatch(
                    f"{directory}: manifest.json says {self.files.manifest.model_type}, config.json "
                    f"{self.model_config.model_type}"
                )
            self._check_passes()
            check_fit(self.files.graph, self.model_config, str(directory / "graph.json"))
            if verify_hashes:
                self.files.verify_weights()

    def adopt(self, config: EngineConfig) -> EngineConfig:
        """The device, the profile and the type of the KV cache of the build unless others are asked for; passes left
        out at the build stay out."""
        options = self.files.manifest.options
        without = tuple(dict.fromkeys((*options.without, *config.without)))
        self._left_out_now = without[len(options.without) :]
        kv_dtype = options.kv_cache_dtype if config.kv_cache_dtype == "auto" else config.kv_cache_dtype
        profile = config.profile or options.profile
        device = self.device_for(config.device)
        return replace(config, device=device, profile=profile, without=without, kv_cache_dtype=kv_dtype)

    def device_for(self, asked: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
        """Weights lie as the kernels of one device read them. Raises: TargetMismatch when another is asked for."""
        built: Literal["cpu", "cuda"] = "cuda" if _levels(_kernels(self.files.program)) == CUDA_LEVEL else "cpu"
        if asked not in ("auto", built):
            raise TargetMismatch(
                f"{self.directory}: is built for device={built}, {asked} is asked for; leave it out, or "
                + rebuild_hint(self.directory)
                + (" --target cuda" if asked == "cuda" else "")
            )
        return built

    def graph(self, model_len: int) -> Graph:
        """The graph of graph.json: up to max_position_embeddings no architecture's graph depends on model_len."""
        return self.files.graph

    def check(self, program: Program, rank: int = 0) -> None:
        """Every constant must be stored as the kernels chosen here want it; other kernels than at the build are fine,
        unless numerics are pinned.

        Raises: TargetMismatch.
        """
        stored, dtype = self.files.ranks[rank].stored, self.files.manifest.options.dtype
        computed = {call.kernel.split(".")[1] for call in program.calls if call.family == "attention"}
        if computed != {dtype}:
            raise Corrupt(
                f"{self.directory}: manifest.json says {dtype}, graph.json computes in {', '.join(sorted(computed))}"
            )
        for name, constant in program.constants.items():
            problem = _mismatch(constant, stored.get(name))
            if problem:
                raise TargetMismatch(f"{self.directory}: {name} {problem}; {self._why_it_differs()}")
        built, here = (_kernels(p) for p in (self.files.program, program))
        # A pass left out only now brings families of its own, which compute the same bits.
        here = {kernel for kernel in here if kernel[0] in {family for family, _ in built}}
        if self._pins_numerics:
            self._check_numerics(built, here)
        elif not here <= built and rank == 0:
            _LOG.warning(
                "%s: %d kernels are chosen again from graph.json, of %s; the build's were of %s. "
                "Logits may differ from the build machine's in the last bits",
                self.directory,
                len(here - built),
                _levels(here),
                _levels(built),
            )

    def _why_it_differs(self) -> str:
        if self._left_out_now:
            names = ",".join((*self.files.manifest.options.without, *self._left_out_now))
            return (
                f"without={','.join(self._left_out_now)} is asked for and decides how weights are stored; leave it "
                f"out, or {rebuild_hint(self.directory)} --without {names}"
            )
        return f"it was built by albireo {self.files.manifest.version}"

    @contextmanager
    def weights(self, graph: Graph, rank: int = 0) -> Iterator[StoredWeights]:
        stored: Mapping[str, StoredConstant] = self.files.ranks[rank].stored
        with hinting(self.directory):
            yield StoredWeights(
                self.files.ranks[rank].weights,
                {name: item.constant for name, item in stored.items()},
                {name: item.offset for name, item in stored.items()},
            )
            self.files.check_unchanged()

    def _check_passes(self) -> None:
        """Raises: TargetMismatch when a pass that was left out is not one of this version's."""
        try:
            passes_without(self.files.manifest.options.without)
        except ConfigError as error:
            raise TargetMismatch(f"{self.directory}: manifest.json: options: {error}") from None

    def _check_numerics(self, built: set[tuple[str, str]], here: set[tuple[str, str]]) -> None:
        """Raises: TargetMismatch when other bits than the build's may come out."""
        version = self.files.manifest.version
        if not here <= built:
            raise TargetMismatch(
                f"{self.directory}: pin_numerics: it was built for kernels of {_levels(built)}, here run those of "
                f"{_levels(here)}, whose logits may differ in the last bits; leave pin_numerics out, or "
                + rebuild_hint(self.directory)
            )
        if version != albireo.__version__:
            raise TargetMismatch(
                f"{self.directory}: pin_numerics: it was built by albireo {version}, this is {albireo.__version__}, "
                "whose kernels may give other last bits; leave pin_numerics out, or " + rebuild_hint(self.directory)
            )

    def _check_dtype(self, dtype: str) -> None:
        built = self.files.manifest.options.dtype
        if dtype != "auto" and compute_dtype(dtype) != built:
            raise TargetMismatch(
                f"{self.directory}: is built for dtype {built}, dtype={dtype} is asked for; leave it out, or "
                + rebuild_hint(self.directory, compute_dtype(dtype))
                + (f" --tp {len(self.parts)}" if len(self.parts) > 1 else "")
            )

    def _check_ranks(self, num_ranks: int | None, tp_invariant: bool) -> None:
        options = self.files.manifest.options
        built = options.tensor_parallel_size
        if num_ranks is not None and num_ranks != built:
            raise TargetMismatch(
                f"{self.directory}: is built for tensor_parallel_size={built}, {num_ranks} is asked for; leave it out, "
                f"or {rebuild_hint(self.directory)} --tp {num_ranks}"
            )
        if tp_invariant and built == 1 and not options.tp_invariant:
            raise TargetMismatch(
                f"{self.directory}: is built with sums of one chain, tp_invariant asks for another order; leave it "
                f"out, or {rebuild_hint(self.directory)} --tp-invariant"
            )


def _stored_encodings(directory: Path, dtype: str) -> dict[str, str]:
    """Of the matrices that lie in few bits and stay so; others are given as numbers by the checkpoint."""
    if not weight_files(directory):  # it may be looked at all the same
        return {}
    with Checkpoint(directory) as checkpoint:
        # float8 is multiplied as bfloat16; a wider compute type would lose its activations' bits
        return {
            name: kind
            for name, kind in checkpoint.encodings.items()
            if encoding(kind).kind != "float" or dtype == encoding(kind).activation
        }


def open_source(directory: Path, config: EngineConfig) -> ModelSource:
    """The source in a directory. Raises: ModelError; ConfigError for what only an engine directory can keep."""
    if is_engine_directory(directory):
        for name in ("quantization", "quantization_head"):
            if getattr(config, name) is not None:
                raise TargetMismatch(
                    f"{directory}: {name} is decided when a directory is built; leave it out, or build with it: "
                    f"albireo build MODEL -o DIR --{name.replace('_', '-')} {getattr(config, name)}"
                )
        return EngineSource(
            directory,
            config.dtype,
            config.verify_hashes,
            config.tensor_parallel_size,
            config.tp_invariant,
            config.pin_numerics,
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
    precision = Precision(config.quantization, config.quantization_head)
    return CheckpointSource(directory, config.dtype, config.tensor_parallel_size or 1, config.tp_invariant, precision)


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


def _mismatch(constant: PackedConstant, item: StoredConstant | None) -> str:
    if item is None:
        return "is not stored"
    stored = item.constant
    if stored.packing != constant.packing:
        return f"is stored as {stored.packing}, wanted {constant.packing}"
    if constant.rope is not None:
        # A table that is too short, or of other frequencies, is computed.
        row_bytes = constant.num_bytes // constant.rows
        fits = stored.cols == constant.cols and stored.num_bytes == stored.rows * row_bytes
        return "" if fits else f"is stored as rows of {stored.cols}, wanted {constant.cols}"
    if (stored.rows, stored.cols, stored.num_bytes) != (constant.rows, constant.cols, constant.num_bytes):
        return (
            f"is stored as {stored.rows} x {stored.cols} in {stored.num_bytes} bytes, wanted {constant.rows} x "
            f"{constant.cols} in {constant.num_bytes}"
        )
    return "" if item.made_of == rows_digest(constant) else "is stored with its rows in another order"


def _kernels(program: Program) -> set[tuple[str, str]]:
    """(family, level) of every kernel."""
    return {(call.family, call.kernel.rpartition(".")[2]) for call in program.calls}


def _levels(kernels: set[tuple[str, str]]) -> str:
    """The instruction-set levels among them."""
    return ", ".join(sorted({level for _, level in kernels}))
