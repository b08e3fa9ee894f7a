"""A model that comes from an engine directory: what was decided at the build is kept, and asking for otherwise refused.

Made by source.py and whoever compares builds. Reads no weight until asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import albireo
from albireo.api.sources.checkpoint_source import with_whole_prompts
from albireo.api.sources.joined_constants import rows_of_joined
from albireo.api.sources.pooled_head import read_pooled_head
from albireo.api.sources.token_heads import with_token_heads
from albireo.artifact.graph_fit import check_fit
from albireo.artifact.graph_json import graph_to_json
from albireo.artifact.layout import MAJOR, MINOR, rebuild_hint
from albireo.artifact.program_json import StoredConstant, rows_digest
from albireo.artifact.reader import EngineFiles, hinting, open_engine, tokenizer_directory
from albireo.backends.cuda.catalog import LEVEL as CUDA_LEVEL
from albireo.backends.stored_weights import RowsOf, StoredWeights
from albireo.compiler.passes.shard import parts
from albireo.compiler.pipeline import passes_without
from albireo.config import EngineConfig
from albireo.dtypes import compute_dtype
from albireo.errors import ConfigError, Corrupt, TargetMismatch
from albireo.execution.pooled_head import PooledHead
from albireo.graph.node import Graph
from albireo.graph.program import PackedConstant, Program
from albireo.models import build_graph, load_config
from albireo.models.checkpoint.left_out import is_tied
from albireo.models.settings.context import longest_context
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.sentence_transformers import with_modules

_LOG = logging.getLogger(__name__)


class EngineSource:
    """An engine directory, validated; its weights are hashed too when asked.

    Args: num_ranks: asked for; None: as many as it was built for. shares_weights: with other processes here.
    Raises: EngineFileError; TargetMismatch for another dtype, or other ranks, than it was built for.
    """

    perception_problem = ""

    def __init__(
        self,
        directory: Path,
        dtype: str,
        verify_hashes: bool,
        num_ranks: int | None = None,
        tp_invariant: bool = False,
        pin_numerics: bool = False,
        shares_weights: bool = False,
    ) -> None:
        self.shares_weights = shares_weights
        #: Lengths of sequences that graph.json is right for.
        self._fitting: set[int] = set()
        #: Of each rank, constants of programs that are rows of a stored one.
        self._parts: dict[int, dict[str, RowsOf]] = {}
        with hinting(directory):
            self.files: EngineFiles = open_engine(directory)
            self.directory, self.vision_directory = directory, self.files.vision
            self._pins_numerics = pin_numerics
            self._left_out_now: tuple[str, ...] = ()
            self.config_directory, self.tokenizer_directory = self.files.config, tokenizer_directory(directory)
            options = self.files.manifest.options
            self.quantization: str | None = options.quantization
            self.parts = parts(options.tensor_parallel_size, options.tp_invariant)
            self._check_dtype(dtype)
            self._check_ranks(num_ranks, tp_invariant)
            self.model_config = load_config(self.config_directory, options.dtype).with_dtype(options.dtype)
            self.default_model_len = min(options.max_model_len, longest_context(self.model_config))
            if self.model_config.model_type != self.files.manifest.model_type:
                raise TargetMismatch(
                    f"{directory}: manifest.json says {self.files.manifest.model_type}, config.json "
                    f"{self.model_config.model_type}"
                )
            self._check_passes()
            # a model named by a class with a head that it has not: its weights said so, which lie here otherwise
            if self.model_config.pooling is None and "hidden" in self.files.graph.outputs:
                self.model_config = replace(self.model_config, pooling=PoolingRule())
            # likewise one that does not say whether its embeddings are its head
            if self.model_config.pooling is None and not is_tied(self.files.graph, self.model_config):
                self.model_config = replace(self.model_config, tie_word_embeddings=False)
            rule = with_modules(self.model_config.pooling or PoolingRule(), self.config_directory)
            self.pooling_rule = with_token_heads(rule, self.config_directory)
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
        config = replace(config, device=device, profile=profile, without=without, kv_cache_dtype=kv_dtype)
        is_causal = self.pooling_rule.is_causal and not self.model_config.takes_whole_prompts
        return config if is_causal else with_whole_prompts(config, self.default_model_len)

    def pooled_head(self) -> PooledHead:
        return read_pooled_head(self.pooling_rule, self.config_directory, self.model_config.pooled_width)

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
        """The graph of graph.json. Raises: TargetMismatch where one of longer sequences than it was built for is
        another: of a window, or of positions that rotate otherwise, that no shorter one notices."""
        if model_len not in self._fitting:
            self._check_length(model_len)
            self._fitting.add(model_len)
        return self.files.graph

    def _check_length(self, model_len: int) -> None:
        built = self.files.manifest.options.max_model_len
        here, there = (build_graph(self.model_config, length) for length in (model_len, built))
        if model_len > built and graph_to_json(here) != graph_to_json(there):
            raise TargetMismatch(
                f"{self.directory}: is built for sequences of up to {built} tokens, and max_model_len={model_len} is "
                f"asked for, which this model computes otherwise; choose max_model_len={built} or less, or "
                f"{rebuild_hint(self.directory)} --max-model-len {model_len}"
            )
        if _rotations(here) != _rotations(there):
            _LOG.warning(
                "%s: rotates positions as for sequences of up to %d tokens, as it was built; the checkpoint with "
                "max_model_len=%d rotates them otherwise",
                self.directory,
                built,
                model_len,
            )

    def check(self, program: Program, rank: int = 0) -> None:
        """Every constant must be stored as the kernels chosen here want it; other kernels than at the build are fine,
        unless numerics are pinned.

        Raises: TargetMismatch.
        """
        stored, dtype = self.files.ranks[rank].stored, self.files.manifest.options.dtype
        computed = {call.kernel.split(".")[1] for call in program.calls if call.family == "attention"}
        if not computed:  # of states alone
            computed = {node.inputs["x"].type.dtype for node in self.files.graph.nodes if node.op == "linear"}
        if computed != {dtype}:
            raise Corrupt(
                f"{self.directory}: manifest.json says {dtype}, graph.json computes in {', '.join(sorted(computed))}"
            )
        parts = self._parts.setdefault(rank, {})
        if self.device_for("auto") == "cuda":  # where rows of a matrix may be read by themselves
            parts |= rows_of_joined(program.constants.values(), stored)
        for name, constant in program.constants.items():
            problem = "" if name in parts else _mismatch(constant, stored.get(name))
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
        manifest = self.files.manifest
        again = rebuild_hint(self.directory)
        again += " --target cuda" if self.device_for("auto") == "cuda" else ""
        again += f" --tp {len(self.parts)}" if len(self.parts) > 1 else ""
        return (
            f"it was built by albireo {manifest.version} in format {MAJOR}.{manifest.minor}, and this one, of "
            f"{MAJOR}.{MINOR}, holds weights otherwise: others of them in one matrix, or in another type; {again}"
        )

    @contextmanager
    def weights(self, graph: Graph, rank: int = 0) -> Iterator[StoredWeights]:
        stored: Mapping[str, StoredConstant] = self.files.ranks[rank].stored
        with hinting(self.directory):
            yield StoredWeights(
                self.files.ranks[rank].weights,
                {name: item.constant for name, item in stored.items()},
                {name: item.offset for name, item in stored.items()},
                self.shares_weights,
                self._parts.get(rank, {}),
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


def _rotations(graph: Graph) -> list[tuple[tuple[float, ...], float]]:
    """How far positions are rotated, of each rotation."""
    ropes = [node.attrs["rope"] for node in graph.nodes if node.op == "rope"]
    return [(rope.inv_freq, rope.attention_factor) for rope in ropes]
