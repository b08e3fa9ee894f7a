"""PreparedImage and ImageProcessor: what all families of processors give, and how they are asked.

Called by the front doors and by every family.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """One picture.

    Fields:
        tiles: each uint8 [height, width, 3] as the tower reads it: resized and cut. Not to be written to.
        grid: lines and columns of its rows, where positions of the model have an axis for either; else None.
        numbered: marks between which its number among the pictures of a prompt stands before its text; None: nothing
            does.
        text: what stands for the picture in a prompt, in place of the placeholder: image tokens, one for each row that
            the tower gives of the tiles, in their order, and the marks between them.
    """

    tiles: tuple[NDArray[np.uint8], ...]
    text: str
    grid: tuple[int, int] | None = None
    numbered: tuple[str, str] | None = None


class ImageProcessor(Protocol):
    """Prepares pictures for one model. May be used by many threads.

    Fields:
        image_token: the token that becomes a row of the tower. placeholder: what the model's chat template writes for a
            picture; around it the template may write more, which stays.
    """

    @property
    def image_token(self) -> str: ...

    @property
    def placeholder(self) -> str: ...

    def prepare(self, image: Image.Image) -> PreparedImage:
        """Of a picture in RGB. Raises: InvalidParams when its sides are too unequal."""
        ...

    def rows(self, height: int, width: int) -> int:
        """How many rows the tower gives of a tile."""
        ...

    def largest_tile(self) -> tuple[int, int]:
        """Height and width of one of as many patches as any has."""
        ...

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [H, W, 3] -> float32 [H, W, 3], which the tower computes with."""
        ...


@runtime_checkable
class OpensChats(Protocol):
    """A processor of pictures that knows how chats begin. Fields: opening: what stands before all that a chat template
    writes; empty: nothing does."""

    @property
    def opening(self) -> str: ...


@runtime_checkable
class HasMarksOfRows(Protocol):
    """A processor of pictures between whose rows there are marks that are rows of the tower, too. Fields: row_marks:
    tokens."""

    @property
    def row_marks(self) -> tuple[str, ...]: ...


@runtime_checkable
class IsWrittenWhole(Protocol):
    """A processor of pictures of each of which chat templates write all rows. Fields: written_rows: how many."""

    @property
    def written_rows(self) -> int: ...


@runtime_checkable
class SharesMarks(Protocol):
    """A processor of pictures between whose marks, where two are side by side, one stands, and behind which words begin
    with a blank. Fields: shared_mark: the token that a picture's text begins and ends with."""

    @property
    def shared_mark(self) -> str: ...


@runtime_checkable
class IsSpelled(Protocol):
    """A processor of pictures whose place prompts of text may spell with letters, as its authors do."""

    def marked(self, text: str) -> str:
        """A prompt with the placeholder where a picture is spelled. Raises: InvalidParams where it cannot be."""
        ...


@runtime_checkable
class BeginsAgain(Protocol):
    """A processor of pictures behind each of which a text begins, with what its tokenizer begins texts with."""

    @property
    def begins_again(self) -> bool: ...


def row_tokens(processor: ImageProcessor) -> tuple[str, ...]:
    """All that become rows of the tower, first the image token."""
    return processor.image_token, *(processor.row_marks if isinstance(processor, HasMarksOfRows) else ())
