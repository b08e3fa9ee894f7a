"""What is no text in a prompt -> what stands for it there, and what a tower reads: for pictures and sounds alike.

Called by images.py and sound_places.py. Where a prompt has places for them is its token ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

from albireo.errors import InvalidParams
from albireo.image_input import ImageInput, Tile, key_of
from albireo.text.tokenizer import Tokenizer

#: A prompt with all in place.
Placed = tuple[list[int], tuple[ImageInput, ...]]


class Standing(NamedTuple):
    """What stands for one in a prompt. Fields: text: row tokens, one a row of the tiles, and marks between them."""

    text: str
    tiles: tuple[Tile, ...]
    grid: tuple[int, int] | None = None


class Places(ABC):
    """Puts what callers give in its places. Threads may share it.

    Fields: one, several: what they are, in errors. are_sounds: they are, else pictures.
    """

    one: str
    several: str
    are_sounds: bool

    def __init__(self, tokenizer: Tokenizer, placeholder: str, row_token: str, most: int | None) -> None:
        """Args:
        placeholder: the token that a prompt has where one is. row_token: that becomes a row of the tower.
        most: of a prompt; None: any number.
        """
        self._tokenizer, self._most = tokenizer, most
        #: What a text says where one is.
        self.mark, self._row_token = placeholder, row_token
        self._place, self._row = self._id(placeholder), self._id(row_token)

    @abstractmethod
    def standing(self, given: Any) -> Standing:
        """What stands for what a caller gave. Raises: InvalidParams when it cannot be read."""

    def placed(self, token_ids: Sequence[int], given: Sequence[Any]) -> Placed:
        """The prompt with what stands for each in place of its mark. Without any, marks are tokens like others.

        Raises: InvalidParams when there are more of the one than of the other, or one cannot be read.
        """
        if not given:
            return list(token_ids), ()
        if self._most is not None and len(given) > self._most:
            raise InvalidParams(
                f"the prompt has {len(given)} {self.several}; limit_mm_per_prompt allows {self._most}; give fewer, or "
                "raise it"
            )
        places = [at for at, token in enumerate(token_ids) if token == self._place]
        if len(places) != len(given):
            raise InvalidParams(
                f"the prompt has {len(places)} places for {self.several} ({self.mark}) and {len(given)} "
                f"{self.several}; give one each"
            )
        ids: list[int] = []
        found: list[ImageInput] = []
        start = 0
        for number, (at, each) in enumerate(zip(places, given, strict=True), 1):
            ids += token_ids[start:at]
            try:
                found.append(self._put(ids, self.standing(each)))
            except InvalidParams as error:
                raise InvalidParams(f"the prompt's {self.one} {number} of {len(places)}: {error}") from None
            start = at + 1
        return [*ids, *token_ids[start:]], tuple(found)

    def _put(self, ids: list[int], standing: Standing) -> ImageInput:
        """At the end of ids."""
        text = standing.text
        while ids and text[:1].isspace() and (before := self._blank(ids[-1])):
            text = before + text  # blanks side by side are one token, as where a text is encoded whole
            ids.pop()
        first = len(ids)
        ids += self._tokenizer.encode(text, add_special_tokens=False)
        spans, tiles = _runs(ids, first, self._row), standing.tiles
        there, wanted = sum(end - start for start, end in spans), sum(tile.num_rows for tile in tiles)
        if there != wanted:
            raise InvalidParams(
                f"the tokenizer writes {there} tokens {self._row_token} for it, the tower gives {wanted} rows: "
                "tokenizer and processor are of different models"
            )
        return ImageInput(key_of(tiles), tiles, spans, standing.grid, self.are_sounds)

    def _blank(self, token_id: int) -> str:
        """The text of a token that is nothing but blanks; empty for any other."""
        if token_id in self._tokenizer.special_ids:
            return ""
        text = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text if text.isspace() else ""

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise InvalidParams(f"the tokenizer has no token {token!r}, which stands for {self.several} in this model")
        return found


def _runs(ids: Sequence[int], first: int, row: int) -> tuple[tuple[int, int], ...]:
    """Positions, from first on, at which a token stands, as runs."""
    found: list[tuple[int, int]] = []
    for at in range(first, len(ids)):
        if ids[at] != row:
            continue
        if found and found[-1][1] == at:
            found[-1] = (found[-1][0], at + 1)
        else:
            found.append((at, at + 1))
    return tuple(found)
