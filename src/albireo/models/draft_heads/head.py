"""DraftHead: a layer that guesses what a model says next, from the model's hidden states and the tokens behind them.

Made by mtp.py, eagle.py and gemma4.py, loaded by api/drafts/draft_head.py. Does not know who runs it.

Row t of a head reads what the model left of token t, and token t + 1; it guesses token t + 2. What it leaves itself
stands for what the model will leave of token t + 1, so that it can go on guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from albireo.errors import ConfigError, UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import LLAMA_ENDS, linear, pooled_states
from albireo.models.checkpoint.text_tensors import Prefixes
from albireo.models.checkpoint.weights import Checkpoint, check_weights, weight_files
from albireo.models.config import ModelConfig
from albireo.models.gguf.files import is_gguf
from albireo.models.settings.draft_input import FEW_LOGITS, JOINING

#: Of DraftHead.taps: what the model's last norm gave.
FINAL = -1
TABLE, HEAD = LLAMA_ENDS.table, f"{LLAMA_ENDS.head}.weight"
#: Where tables of tokens are, in files of models with and without other parts.
ENDS: Prefixes = (
    ("model.language_model.embed_tokens.", "model.embed_tokens."),
    ("language_model.model.embed_tokens.", "model.embed_tokens."),
    ("model.embed_tokens.", "model.embed_tokens."),
    ("language_model.lm_head.", "lm_head."),
    ("lm_head.", "lm_head."),
)


@dataclass(frozen=True, slots=True)
class DraftHead:
    """A head that is not loaded.

    Fields:
        directory: where its tensors are; names: what their names begin with there, and in its graph.
        config: of its layer: hidden_size is its own, vocab_size counts its logits.
        taps: what it reads of a token: what the model's layer of this number reads, or FINAL; side by side.
        build: its graph, for sequences of up to so many tokens.
        state_size: numbers of all taps of a token. is_combined: a linear makes hidden_size of them, see combine().
        shared: which of the model's constants its graph has, too.
        reads_cache: it has no KV cache: its layers read the model's.
        has_own_ids: it guesses some of the model's tokens, by ids of its own; see eagle.token_ids().
    """

    directory: Path
    names: Prefixes
    config: ModelConfig
    taps: tuple[int, ...]
    build: Callable[[int], Graph]
    state_size: int
    is_combined: bool = False
    shared: tuple[str, ...] = (TABLE, HEAD)
    has_own_ids: bool = False
    reads_cache: bool = False

    @property
    def num_ids(self) -> int | None:
        """See DraftInput."""
        return None if self.config.draft is None else self.config.draft.num_ids

    @property
    def kept_size(self) -> int:
        """Numbers of what is kept of a token."""
        return self.config.hidden_size if self.is_combined else self.state_size

    def combine(self) -> Graph:
        """What makes one row of those of all taps, which come with the step. Output: hidden, of all rows wanted."""
        b, c = GraphBuilder(), self.config
        with b.part("combine"):
            x = b.cast(b.given(self.state_size, 0), c.dtype)
            return pooled_states(b, linear(b, c, x, JOINING, c.hidden_size, "fc", False, None))

    def check_weights(self, graphs: Sequence[Graph]) -> None:
        """Whether its tensors are there for these, what it shares aside.

        Raises: ConfigError where there is no head; WeightMismatch; UnsupportedModel for files that are not read.
        """
        with self.tensors() as tensors:
            for graph in graphs:
                left_out = (*self.shared, FEW_LOGITS)
                own = {name: value for name, value in graph.constants.items() if name not in left_out}
                if not any(name in tensors for name in own):
                    raise ConfigError(
                        f"speculative_config: {self.directory} has no layers that guess; checkpoints that were trained "
                        "or written anew often lack them. Take the published one, or method ngram"
                    )
                check_weights(replace(graph, constants=own), tensors, ("*",))

    @contextmanager
    def tensors(self) -> Iterator[Checkpoint]:
        """Its own and those that it shares, where the directory has them."""
        if is_gguf(self.directory) or not weight_files(self.directory):
            raise UnsupportedModel(f"{self.directory}: heads that draft are read from safetensors")
        with Checkpoint(self.directory, self.names) as checkpoint:
            yield checkpoint
