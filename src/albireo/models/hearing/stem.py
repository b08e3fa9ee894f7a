"""Stem: what is computed of a tile before a tower's own graph, one piece of the tile after another.

Implemented by the families, run by execution/vision.py. Convolutions: each is a linear of rows that lie side by side,
which the host puts there. In pieces, as such rows are many times what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from albireo.graph.node import Graph
from albireo.models.vision.patches import F32, Sequences

#: Of convolutions in time: frames that one sees at once.
KERNEL = 3


class Stem(Protocol):
    """Of one tower."""

    def graphs(self) -> tuple[Graph, ...]:
        """In turn: given rows -> output hidden."""
        ...

    def most_rows(self, patches: int) -> tuple[int, ...]:
        """Most that each graph is given of a piece, of tiles of up to so many patches."""
        ...

    def pieces(self, tile: F32) -> Iterator[F32]:
        """[rows, K] of a tile [H, W], for the first graph, in order."""
        ...

    def sequences(self, number: int, rows: int) -> Sequences:
        """Of so many rows that graph number is given; as vision.tower.VisionTower.sequences()."""
        ...

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        """All that graph number is given with rows, first these; and by what it rotates, as TowerInputs.rope_rows."""
        ...

    def behind(self, number: int, hidden: F32) -> F32:
        """[rows, K] of what graph number gives of a piece: for the next graph, or for the tower's own.

        Of the last piece there may be more of these than the tile has patches; what is too many is not read.
        """
        ...


class GivesRowsAlone:
    """Of a stem whose graphs are given nothing but rows; see Stem."""

    __slots__ = ()

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        return (rows,), None


class SeesNothing(GivesRowsAlone):
    """Of a stem without attention; see Stem."""

    __slots__ = ()

    def sequences(self, number: int, rows: int) -> Sequences:
        return ()


def side_by_side(frames: F32, stride: int) -> F32:
    """[n / stride, 3 * width] of frames [n, width], zeros before and behind: of each number the three frames', as a
    convolution's weight is flattened."""
    padded = np.pad(frames, ((1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL, axis=0)[::stride]
    return np.ascontiguousarray(windows.reshape(len(windows), -1), np.float32)
