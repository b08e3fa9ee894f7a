"""Where tokens begin in the text they make, in characters, a few tokens at a time.

Called by server/endpoints/completions.py. Does not know when text is told: stop strings and open characters may hold it
back.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence

from albireo.text.detokenizer import IncrementalDetokenizer
from albireo.text.pieces import LeadingSpaces
from albireo.text.tokenizer import Tokenizer


class TextPlaces:
    """Places of tokens that come one after another.

    A token that goes on with a character is where that character begins. Byte tokens of SentencePiece that are no UTF-8
    count as they would alone, which may be less than what decoding the whole run shows of them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        shows: Callable[[str, int], bool],
        *,
        prompt_token_ids: Sequence[int] = (),
        place: int = 0,
    ) -> None:
        """Args:
        shows: whether a special token of this text, at this place, is part of the text.
        prompt_token_ids: what the tokens go on from. place: of the first one.
        """
        self._tokenizer = tokenizer
        self._shows = shows
        self._place = place
        self._is_whole = tokenizer.pieces.kind == "whole"
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = IncrementalDetokenizer(tokenizer, skip_special_tokens=False, prompt_token_ids=prompt_token_ids)
        begins = all(token_id in tokenizer.special_ids for token_id in prompt_token_ids)
        self._spaces = LeadingSpaces(tokenizer.pieces.leading_spaces if begins else 0)

    def take(self, token_ids: Sequence[int]) -> list[int]:
        """The place of each of the next tokens."""
        return [self._step(token_id) for token_id in token_ids]

    def _step(self, token_id: int) -> int:
        begin = self._place
        if token_id in self._tokenizer.special_ids:
            (text,) = self._tokenizer.token_strings([token_id])
            if not self._shows(text, begin):
                return begin
        if self._is_whole:
            self._place += len(self._text.push([token_id]))
            return begin
        piece = self._tokenizer.pieces.piece(token_id)
        if piece is None:
            return begin
        if piece.data and not 0x80 <= piece.data[0] < 0xC0:
            # Nothing completes what is open.
            begin = self._place = begin + len(self._bytes.decode(b"", final=True))
        self._place += len(self._spaces.off(self._bytes.decode(piece.data)))
        return begin
