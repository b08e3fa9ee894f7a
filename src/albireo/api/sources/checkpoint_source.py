"""A model that comes from a checkpoint, as it was published: nothing was decided about it yet.

Made by source.py, build.py and whoever compares with a checkpoint. Reads no weight until asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from albireo.api.sources.pooled_head import read_pooled_head
from albireo.api.sources.projector_place import beside
from albireo.api.sources.token_heads import with_token_heads
from albireo.backends.weights import Weights
from albireo.compiler.passes import choose_precision
from albireo.compiler.passes.shard import parts
from albireo.config import EngineConfig
from albireo.encodings import encoding
from albireo.errors import UnsupportedModel
from albireo.execution.pooled_head import PooledHead
from albireo.graph.node import Graph
from albireo.graph.program import Program
from albireo.models import build_graph, load_config, open_checkpoint
from albireo.models.checkpoint.opened import Opened
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.config import ModelConfig
from albireo.models.settings.context import default_context
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.sentence_transformers import MODULES, with_modules
from albireo.quantization.schemes import Precision

_LOG = logging.getLogger(__name__)


class CheckpointSource:
    """A directory in Hugging Face layout, or a GGUF file. What is packed of it is each process's own.

    Its files are opened once for what is asked before weights are read and for the first who reads them.
    """

    shares_weights = False

    def __init__(
        self,
        directory: Path,
        dtype: str,
        num_ranks: int = 1,
        tp_invariant: bool = False,
        precision: Precision | None = None,
        mmproj: str | None = None,
    ) -> None:
        """Args: mmproj: what a GGUF file's model sees and hears with; None: what lies beside it."""
        self.parts = parts(num_ranks, tp_invariant)
        self._opened = Opened(directory)
        self.model_config = load_config(directory, opened=self._opened).with_dtype(dtype)
        # also to say at once that there are no weights, before anybody asks whether they would fit
        stored, is_weight_only = stored_encodings(self._opened.get(), self.model_config.dtype)
        self.precision = replace(precision or Precision(), stored=stored, is_stored_weight_only=is_weight_only)
        self.quantization = self.precision.scheme
        self.directory = self.tokenizer_directory = directory
        found = beside(directory, mmproj)
        self.config_directory, self.perception_problem = found.place or directory, found.problem
        self.vision_directory: Path | None = found.projector or directory
        self.default_model_len = default_context(self.model_config)
        rule = with_modules(self.model_config.pooling or PoolingRule(), directory)
        self.pooling_rule = with_token_heads(rule, directory)
        if self.pooling_rule.is_of_logits:
            _check_plain_logits(self.model_config, directory)
        self._last_graph: tuple[int, Graph] | None = None

    def adopt(self, config: EngineConfig) -> EngineConfig:
        is_causal = self.pooling_rule.is_causal and not self.model_config.takes_whole_prompts
        return config if is_causal else with_whole_prompts(config, self.default_model_len)

    def pooled_head(self) -> PooledHead:
        return read_pooled_head(self.pooling_rule, self.directory, self.model_config.pooled_width)

    def graph(self, model_len: int) -> Graph:
        if self._last_graph is None or self._last_graph[0] != model_len:
            graph = build_graph(self.model_config, model_len)
            if not self.precision.is_plain:
                choose_precision.run(graph, self.precision.of, self.precision.is_weight_only, self.precision.stored)
            self._last_graph = model_len, graph
        return self._last_graph[1]

    def check(self, program: Program, rank: int = 0) -> None:
        """Nothing is stored, so everything fits."""

    @contextmanager
    def weights(self, graph: Graph, rank: int = 0) -> Iterator[Weights]:
        # ranks may ask at the same time
        with open_checkpoint(self.directory, graph, self._opened if rank == 0 else None) as checkpoint:
            if rank == 0:
                for note in checkpoint.notes:
                    _LOG.warning("%s: %s", self.directory, note)
            yield checkpoint


def _check_plain_logits(config: ModelConfig, directory: Path) -> None:
    """Raises: UnsupportedModel where logits, of which scores are made, are more than a linear of hidden states."""
    if config.multipliers.logits != 1.0 or config.multipliers.logits_cap is not None:
        raise UnsupportedModel(
            f"{directory / MODULES}: LogitScore of model_type {config.model_type}, whose logits are divided or capped, "
            "is not computed"
        )


def with_whole_prompts(config: EngineConfig, default_model_len: int) -> EngineConfig:
    """With steps that have room for the longest prompt, where nobody says how much room they have."""
    longest = config.max_model_len or default_model_len
    if config.max_num_batched_tokens is not None or config.step_limits.max_num_batched_tokens >= longest:
        return config
    return replace(config, max_num_batched_tokens=longest)


def stored_encodings(checkpoint: Checkpoint, dtype: str) -> tuple[dict[str, str], bool]:
    """Of the matrices that lie in few bits and stay so; others are given as numbers by the checkpoint. And whether
    activations are to keep 16 bits beside them. Args: dtype: computed in."""
    # float8 is multiplied as bfloat16; a wider compute type would lose its activations' bits
    stored = {
        name: kind
        for name, kind in checkpoint.encodings.items()
        if encoding(kind).kind != "float" or dtype == encoding(kind).activation
    }
    return stored, checkpoint.is_weight_only
