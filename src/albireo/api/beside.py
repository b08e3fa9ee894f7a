"""What has blocks of the same numbers as a model, out of the same memory: a draft model, or a head that drafts.

Used by devices.py, which counts blocks for both; made by drafter.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from albireo.graph.program import Program

#: Of what is tried before it is known how many blocks there is room for: the null block and another.
FEW_BLOCKS = 2


class Beside(Protocol):
    """Fields: block_bytes: of one block, beside the model's."""

    @property
    def block_bytes(self) -> int: ...

    def take_blocks(self, num_blocks: int) -> None:
        """Have so many, in place of those there were."""
        ...


class MakeBeside(Protocol):
    """Fields: programs: its own, each with the positions of the longest sequence."""

    @property
    def programs(self) -> Sequence[tuple[Program, int]]: ...

    def __call__(self, model: Any, num_blocks: int) -> Beside:
        """Args: model: has its weights, and not all of its blocks yet. num_blocks: there are to be now."""
        ...
