"""Which tokens a piece of a block's text is made of, so that log-probabilities can be told with it.

Used by response_answer.py. Blocks hold what a parser made of an output: marks, and blanks round them, are in none, and
what may become a mark is told later. So what is told is looked for in what was read. Does not know protocols.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from albireo.server.blocks import Block, Change
from albireo.step import TokenLogprobs
from albireo.text.places import TextPlaces


class TextTokens:
    """Invariants: 1. a token is told once, with the text in which its first character is; 2. tokens of marks, thoughts
    and calls are not told, nor those that make no text.

    Args: places: of the output's tokens.
    """

    def __init__(self, places: TextPlaces) -> None:
        self._places = places
        self._tokens: deque[tuple[int, TokenLogprobs]] = deque()  # not told yet, with the places where they begin
        self._cuts: deque[int] = deque()
        self._raw, self._start = "", 0  # read, and in no block yet; where it begins
        self._last: Block | None = None  # of which something was told; None: a thought nobody is told
        self._is_new = True

    def take(self, token_ids: Sequence[int], entries: Sequence[TokenLogprobs]) -> None:
        """The next tokens, before their text."""
        places = self._places.take(token_ids)
        self._tokens.extend(zip(places, entries, strict=True))
        self._cuts.extend(places)

    def pieces(self, text: str) -> Iterator[str]:
        """The next text, a token at a time: to be read so, and asked about by of() before the next one is taken."""
        start = self._start + len(self._raw)
        begin = 0
        while self._cuts and (cut := self._cuts[0] - start) < len(text):
            self._cuts.popleft()
            if cut > begin:
                yield self._read(text[begin:cut])
                begin = cut
        yield self._read(text[begin:])

    def _read(self, text: str) -> str:
        self._raw += text
        return text

    def of(self, change: Change) -> list[TokenLogprobs]:
        """Tokens of what a change tells."""
        if change.block.kind == "call":
            self._drop(len(self._raw))  # written in another way than it is told
            return []
        if change.what != "more":
            self._is_new |= change.what == "begin"
            return []
        found = self._told(change.text, change.block)
        return found if change.block.kind == "text" else []

    def pass_over(self, thought: str) -> None:
        """What is read next is thought, and in no block."""
        self._told(thought, None)

    def _told(self, text: str, block: Block | None) -> list[TokenLogprobs]:
        is_new = self._is_new or block is not self._last
        self._is_new, self._last = False, block
        begin, length = _found(self._raw, text, is_new=is_new)
        self._drop(begin)
        start, end = self._start, self._start + length
        self._drop(length)
        found = []
        while self._tokens and self._tokens[0][0] < end:
            place, entry = self._tokens.popleft()
            if place >= start:
                found.append(entry)
        return found

    def _drop(self, length: int) -> None:
        self._raw = self._raw[length:]
        self._start += length


def _found(raw: str, told: str, *, is_new: bool) -> tuple[int, int]:
    """Where in what was read it stands, and its length. The end of what was read may be held back still, and marks may
    stand in front of a block's first text: of what stands there twice it is the last ("<<", of which one is held back
    for a mark, so loses its first token)."""
    if not is_new and raw.startswith(told):
        return 0, len(told)
    for text in (told, told.lstrip("\n")):  # lines of two messages that are told as one are parted
        begin = raw.rfind(text)
        if begin >= 0:
            return begin, len(text)
    return 0, len(raw)
