"""Stem: what is computed of a tile before a tower's own graph, one piece of the tile after another.

Implemented by the families, run by execution/vision.py. Convolutions: each is a linear of rows that lie side by side,
which the host puts there. In pieces, as such rows are many times what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.node import Graph
from albireo.models.vision.patches import F32, Sequences

#: Of convolutions in time: frames that one sees at once, and that those of two dimensions go on by.
KERNEL, STRIDE = 3, 2


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


@runtime_checkable
class ChoosesGraphs(Protocol):
    """A stem not all of whose graphs compute a piece."""

    def order(self, rows: int) -> tuple[int, ...]:
        """Numbers of those that compute one of so many rows, in turn."""
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


def check_heard(height: int, width: int, num_bands: int, most: int) -> None:
    """Raises: InvariantError for a tile that is not 1 to most frames of so many bands."""
    if width != num_bands or not 1 <= height <= most:
        raise InvariantError(f"{height} frames of {width} bands; this tower hears up to {most} of {num_bands}")


def halved(count: int, times: int, is_causal: bool = False) -> int:
    """What convolutions of two dimensions, one behind the other, leave of so many frames, or bands. is_causal: with two
    zeros before and one behind, not one and one."""
    for _ in range(times):
        count = count // STRIDE + 1 if is_causal else -(-count // STRIDE)
    return count


def windows(padded: F32) -> F32:
    """[rows / 2, bands / 2, 3, 3, channels] of places with the zeros around them: what each of a convolution of two
    dimensions sees, by frame, then by band."""
    tall, wide = ((side - KERNEL) // STRIDE + 1 for side in padded.shape[:2])
    found = np.empty((tall, wide, KERNEL, KERNEL, padded.shape[2]), np.float32)
    for frame in range(KERNEL):
        for band in range(KERNEL):
            found[:, :, frame, band] = padded[frame : frame + 2 * tall : STRIDE, band : band + 2 * wide : STRIDE]
    return found


def seen_in_time(rows: F32, kernel: int, stride: int) -> F32:
    """[n, width * kernel] of rows [m, width]: what a convolution sees at each of its steps, as its weight is
    flattened."""
    seen = np.lib.stride_tricks.sliding_window_view(rows, kernel, axis=0)[::stride]
    return np.ascontiguousarray(seen.reshape(len(seen), -1), np.float32)


def side_by_side(frames: F32, stride: int) -> F32:
    """[n / stride, 3 * width] of frames [n, width], zeros before and behind: of each number the three frames'."""
    return seen_in_time(np.pad(frames, ((1, 1), (0, 0))), KERNEL, stride)
