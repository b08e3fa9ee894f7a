"""A model of which nothing but config.json is there: enough to plan.

Made by bench/plan.py and cli/inspect.py, and of a draft model beside it. Does not load.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from albireo.api.sources.asked_precision import asked_precision
from albireo.api.sources.checkpoint_source import with_whole_prompts
from albireo.api.sources.overrides import overridden
from albireo.api.sources.source import ModelSource, open_source
from albireo.artifact.reader import is_engine_directory
from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import Part, parts
from albireo.config import EngineConfig
from albireo.errors import ConfigError, InvariantError
from albireo.execution.pooled_head import PooledHead
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models import build_graph, load_config
from albireo.models.checkpoint.weights import weight_files
from albireo.models.settings.context import default_context
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.quantized import quantization_format
from albireo.quantization.schemes import Precision

#: Of a config.json that names no dtype, beside no weights: what most checkpoints are published in.
ASSUMED_DTYPE = "bfloat16"


def open_to_plan(directory: Path, config: EngineConfig) -> ModelSource:
    """As api.source.open_source(), but for directories without weights, too."""
    if is_engine_directory(directory) or weight_files(directory):
        return open_source(directory, config)
    ranks = parts(config.tensor_parallel_size or 1, config.tp_invariant)
    directory = overridden(directory, config)
    return ConfigOnly(directory, config.dtype, ranks, asked_precision(directory, config))


class ConfigOnly:
    """Implements ModelSource: config.json without weights, which will be what its quantization_config says."""

    shares_weights = False
    perception_problem = ""

    def __init__(self, directory: Path, dtype: str, parts: tuple[Part | None, ...], precision: Precision) -> None:
        self.directory = self.config_directory = self.tokenizer_directory = directory
        self.vision_directory: Path | None = directory
        self.model_config = load_config(directory, ASSUMED_DTYPE).with_dtype(dtype)
        self.precision, self.quantization = precision, precision.scheme
        self._format = quantization_format(directory)
        if self._format is not None and precision.scheme is not None:
            raise ConfigError(
                f"quantization={precision.scheme}: this checkpoint is quantized already, as its config.json says; "
                "leave it out, or give the original checkpoint"
            )
        self.default_model_len = default_context(self.model_config)
        self.parts = parts
        self.pooling_rule = self.model_config.pooling or PoolingRule()

    def adopt(self, config: EngineConfig) -> EngineConfig:
        """The settings as they are, but for steps that have room for whole prompts where they need it."""
        is_causal = not self.model_config.takes_whole_prompts
        return config if is_causal else with_whole_prompts(config, self.default_model_len)

    def graph(self, model_len: int) -> Graph:
        """The graph for sequences of up to model_len tokens."""
        graph = build_graph(self.model_config, model_len)
        if self._format is not None or not self.precision.is_plain:
            choose_precision.run(graph, self._of, self.precision.is_weight_only, self.precision.stored)
        return graph

    def check(self, program: Program, rank: int = 0) -> None:
        """Nothing is stored, so everything fits."""

    def weights(self, graph: Graph, rank: int = 0) -> AbstractContextManager[Weights | StoredWeights]:
        return self._lacks("weights")

    def pooled_head(self) -> PooledHead:
        return self._lacks("head")

    def _lacks(self, what: str) -> NoReturn:
        raise InvariantError(f"{self.directory}: there is no {what} to read; it can be planned and not loaded")

    def _of(self, name: str, role: str | None) -> str | None:
        """The encoding of a matrix; see compiler.passes.choose_precision."""
        if self._format is None or role in ("vocab", "router"):
            return self.precision.of(name, role)
        return self._format.foreseen(name.removesuffix(".weight"))
