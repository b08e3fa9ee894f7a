"""What has blocks of the same numbers as a model, out of the same memory: a draft model, or a head that drafts.

Used by cuda_device.py, which counts blocks for both; made by drafter.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from albireo.backends.stored_weights import StoredWeights
from albireo.backends.weights import Weights
from albireo.graph.program import Program

#: Of what is tried before it is known how many blocks there is room for: the null block and another.
FEW_BLOCKS = 2


@dataclass(frozen=True, slots=True)
class Guesser:
    """A program that guesses for a model, not loaded yet.

    Fields:
        max_positions: longest sequence in tokens.
        borrowed: constants that are the model's, which has the same by these names. reads_cache: its KV cache is.
    """

    program: Program
    weights: Weights | StoredWeights
    max_positions: int
    borrowed: tuple[str, ...] = ()
    reads_cache: bool = False


@dataclass(frozen=True, slots=True)
class Keeping:
    """How hidden states are kept; see execution.draft_head.HiddenStates. Fields: combine: a loaded Guesser, or None."""

    block_size: int
    width: int
    is_exact: bool
    group: int
    combine: Any | None


class Beside(Protocol):
    """Fields: block_bytes: of one block, beside the model's."""

    @property
    def block_bytes(self) -> int: ...

    def take_blocks(self, num_blocks: int) -> None:
        """Have so many, in place of those there were."""
        ...


class MakeBeside(Protocol):
    """Fields: programs: its own, each with the positions of the longest sequence. taps: what it reads of the model."""

    @property
    def programs(self) -> Sequence[tuple[Program, int]]: ...

    @property
    def taps(self) -> tuple[int, ...]: ...

    def __call__(self, model: Any, num_blocks: int) -> Beside:
        """Args: model: has its weights, and not all of its blocks yet. num_blocks: there are to be now."""
        ...
