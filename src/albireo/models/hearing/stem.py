"""Stem: what is computed of a tile before a tower's own graph, one piece of the tile after another.

Implemented by the families, run by execution/vision.py. Convolutions: each is a linear of rows that lie side by side,
which the host puts there. In pieces, as such rows are many times what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from albireo.graph.node import Graph
from albireo.models.vision.patches import F32

#: Of convolutions in time: frames that one sees at once.
KERNEL = 3


class Stem(Protocol):
    """Of one tower."""

    def graphs(self) -> tuple[Graph, ...]:
        """In turn: given rows -> output hidden."""
        ...

    @property
    def windows(self) -> tuple[int, ...]:
        """Of each graph, how many of its rows see each other in layers of a second layer of the KV cache, one such
        window behind another, while in those of the first all do; 0: there is no second. Empty: of none there is."""
        ...

    def most_rows(self, patches: int) -> tuple[int, ...]:
        """Most that each graph is given of a piece, of tiles of up to so many patches."""
        ...

    def pieces(self, tile: F32) -> Iterator[F32]:
        """[rows, K] of a tile [H, W], for the first graph, in order."""
        ...

    def behind(self, number: int, hidden: F32) -> F32:
        """[rows, K] of what graph number gives of a piece: for the next graph, or for the tower's own.

        Of the last piece there may be more of these than the tile has patches; what is too many is not read.
        """
        ...


class WithoutWindows:
    """Of a stem in which no row sees another."""

    __slots__ = ()

    @property
    def windows(self) -> tuple[int, ...]:
        return ()


def side_by_side(frames: F32, stride: int) -> F32:
    """[n / stride, 3 * width] of frames [n, width], zeros before and behind: of each number the three frames', as a
    convolution's weight is flattened."""
    padded = np.pad(frames, ((1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, KERNEL, axis=0)[::stride]
    return np.ascontiguousarray(windows.reshape(len(windows), -1), np.float32)
