"""How many tokens a text has that comes in pieces, counted while it comes.

Called by the server, which tells how many tokens a model thought. Encoding all of a long text at its end would hold up
whoever else is served then. Does not know what the text is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from albireo.text.tokenizer import Tokenizer

#: Characters that are encoded at a time, about; a millisecond's work.
CHUNK = 4096
#: Characters in which a place is looked for where the text may be cut, and places that are tried there.
_SPAN, _MOST_TRIES = 1024, 4
#: Characters on each side of a place by which it is judged. No token of words is as long.
_CONTEXT = 64
#: Where tokens end in all texts of words: before the space of the next word, before the marks between Chinese phrases.
_PLACES = re.compile(r"(?<=[a-z])(?= [A-Za-z])|(?<=[\u4e00-\u9fff])(?=[，。、])")


class TokenCount:
    """Invariant: num_tokens() is len(tokenizer.encode(text, add_special_tokens=False)) of all text so far.

    A text is cut at a place only where the characters round it have the same tokens in two parts as in one: either as
    they are, or without the space between, for tokenizers that put one in front of every text. Where there is no such
    place, as in a text without words, it is encoded as a whole at the end.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._num_tokens = 0  # of what was cut off
        self._rest = ""
        self._end = CHUNK  # of where the next place is looked for

    def push(self, text: str) -> None:
        """The next piece."""
        self._rest += text
        while len(self._rest) >= self._end + _CONTEXT:
            self._cut()

    def num_tokens(self) -> int:
        """Of all text so far. Cost: encodes what was not cut off."""
        return self._num_tokens + self._count(self._rest)

    def _cut(self) -> None:
        rest, end = self._rest, self._end
        places = [match.start() for match in _PLACES.finditer(rest, end - _SPAN, end)]
        for place in places[: -_MOST_TRIES - 1 : -1]:
            begin = self._begin_behind(place)
            if begin is not None:
                self._num_tokens += self._count(rest[:place])
                self._rest, self._end = rest[begin:], CHUNK
                return
        self._end += _SPAN

    def _begin_behind(self, place: int) -> int | None:
        """Where the text goes on that is encoded by itself, if it is cut at a place; None: it may not be."""
        before, behind = self._rest[place - _CONTEXT : place], self._rest[place : place + _CONTEXT]
        together, first = self._encode(before + behind), self._encode(before)
        for num_left_out in range(1 + behind.startswith(" ")):
            if together == first + self._encode(behind[num_left_out:]):
                return place + num_left_out
        return None

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _count(self, text: str) -> int:
        return len(self._encode(text)) if text else 0
