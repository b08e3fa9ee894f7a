"""Orders: what rank 0 of several does with its model, for the others to do the same.

Told by model.py of rank 0, obeyed by model.py of the others; carried by whoever starts them. A step is the words that
its staging sent: they decide all that a step computes, and are the same on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from albireo.backends.cuda.buckets import Bucket, Ending
from albireo.graph.program import Program

#: Methods of a CudaModel that a rank may be told to call.
OBEYED = frozenset(("follow", "record", "copy_blocks", "swap_out", "swap_in"))


@dataclass(frozen=True, slots=True)
class StagedStep:
    """A step as rank 0 launches it.

    Fields: sizes: padding included. bucket: None: call by call. feeds: tokens of the step before are among its own.
        words: int32, what was copied to the device.
    """

    sizes: Mapping[str, int]
    bucket: Bucket | None
    ending: Ending
    feeds: bool
    words: bytes


class Leader(Protocol):
    """Of rank 0: how the others are told."""

    def together(self, number: int, name: str, *args: Any) -> AbstractContextManager[None]:
        """Have every other rank call a method of a model, while this one does the same inside.

        Args: number: of the model, 0 being the first. name: of OBEYED.
        Raises: RankLost when one is gone, or when this one fails inside: the others wait for what never comes, and are
            ended.
        """
        ...

    def check(self) -> None:
        """Raises: RankLost when one is gone."""
        ...

    def share(self, programs: Sequence[Program]) -> int:
        """Have every other rank make a second model of its program, see CudaModel.sharing(). Returns: its number."""
        ...
