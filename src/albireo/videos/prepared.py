"""PreparedVideo and VideoProcessor: what all families of processors give, and how they are asked.

Called by the front doors and by every family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from albireo.videos.decode import Footage, Frames


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """One video.

    Fields:
        tiles: each uint8 [height, width, 3 of each frame that the tower reads at once]. Not to be written to.
        text: what stands for the video in a prompt: row tokens, one for each row that the tower gives of the tiles, in
            their order, and the marks between them.
        grid: lines and columns of the rows of a tile.
        times: of each tile, how much later its rows are than those of the first; empty: each tile's are apart.
        behind: rows of the last tile behind those of its grid.
        counts: of each tile, how many grids of rows it has; empty: one.
    """

    tiles: tuple[NDArray[np.uint8], ...]
    text: str
    grid: tuple[int, int]
    times: tuple[int, ...] = ()
    behind: int = 0
    counts: tuple[int, ...] = ()

    @property
    def rows(self) -> tuple[int, ...]:
        """How many each tile has."""
        each = self.grid[0] * self.grid[1]
        if self.counts:
            return tuple(count * each for count in self.counts)
        return (*(each,) * (len(self.tiles) - 1), each + self.behind)


class VideoProcessor(Protocol):
    """Prepares videos for one model. May be used by many threads.

    Fields:
        mark: what the model's chat template writes for a video. row_token: that becomes a row of the tower. around:
            tokens that go with the mark where they stand before and behind it; None: what stands there stays.
    """

    @property
    def mark(self) -> str: ...

    @property
    def row_token(self) -> str: ...

    @property
    def around(self) -> tuple[str, str] | None: ...

    def choose(self, footage: Footage) -> tuple[int, ...]:
        """Numbers of the frames that are read, ascending."""
        ...

    def size(self, num_frames: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of so many frames as the tower reads them.

        Raises: InvalidParams when their sides are too unequal.
        """
        ...

    def num_rows(self, num_frames: int, height: int, width: int) -> int:
        """How many rows the tower gives of so many frames of a size that size() gave."""
        ...

    def prepare(self, frames: Frames) -> PreparedVideo:
        """Raises: InvalidParams, as size()."""
        ...

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [H, W, 3 of each frame] -> float32, which the tower computes with."""
        ...

    def largest_tile(self) -> tuple[int, int]:
        """Height and width of one of as many patches as any has."""
        ...


@runtime_checkable
class WritesProse(Protocol):
    """A processor of videos of which a prompt says more in words, between which and those around them there is nothing.

    Fields: is_prose: whether it does. chat_template: by which chats that have videos are written, where callers name no
        other.
    """

    @property
    def is_prose(self) -> bool: ...

    @property
    def chat_template(self) -> str: ...
