"""GatherSpace: where the rows of all ranks, or of all leaves of a sum, lie side by side; more rows than fit take turns.

Owned by scratch.py, one a model: what is gathered is read by the launch behind it, and by nothing later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from albireo.backends.cuda.peers import Peers
from albireo.errors import InvariantError

#: Bytes of the largest turn, where a row of all does not take more.
_MOST_BYTES = 64 << 20


def elements_for(num_parts: int, num_rows: int, width: int) -> int:
    """float32 of the space for so many rows of so many parts."""
    return num_parts * width * max(1, min(num_rows, _MOST_BYTES // (4 * num_parts * width)))


@dataclass(frozen=True, slots=True)
class GatherSpace:
    """Fields: space: float32. peers: None where there is one rank, whose sums may have leaves all the same."""

    space: torch.Tensor
    peers: Peers | None = None

    def turns(self, num_parts: int, num_rows: int, width: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """Rows, and room for them, [num_parts, rows, width] without gaps."""
        turn = min(num_rows, len(self.space) // (num_parts * width))
        if not turn:
            raise InvariantError(f"{len(self.space)} numbers of space for {num_parts} parts of {width}")
        for first in range(0, num_rows, turn):
            rows = slice(first, min(first + turn, num_rows))
            count = rows.stop - first
            yield rows, self.space[: num_parts * count * width].view(num_parts, count, width)

    def gather(self, x: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Rows of x, and the same rows of every rank, [size, rows, any]; x float32, rows as far apart on every rank."""
        if self.peers is None:
            raise InvariantError("a sum over ranks in a program that runs alone")
        whole = x.as_strided((len(x), x.stride(0)), (x.stride(0), 1))
        for rows, room in self.turns(self.peers.size, len(x), x.stride(0)):
            self.peers.gather(room, whole[rows])
            yield rows, room
