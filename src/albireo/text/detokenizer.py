"""Token ids -> text, a token at a time, never splitting a character.

Called by api for each sequence. Does not know stop strings (stop.py) or requests.

The text pushed out in pieces is the text of the whole sequence as tokenizer.decode gives it. Three ways, by how the
tokenizer makes text of tokens (pieces.py):
- byte_level: the tokens are bytes; an incremental UTF-8 decoder keeps the at most three bytes of an open character.
- byte_fallback: tokens are text, except for runs of byte tokens. A run that is not UTF-8 as a whole decodes to one
  U+FFFD a byte, so a run waits for its end; one longer than MAX_RUN goes out as far as it is valid.
- whole: the library decodes a window of the last tokens; what is new at its end goes out.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence

from albireo.text.pieces import LeadingSpaces
from albireo.text.tokenizer import Tokenizer

#: Byte tokens held at most: 16 characters of Chinese. After that text goes out as soon as a character is complete.
MAX_RUN = 48
#: Tokens decoded together by the whole way, and tokens it waits for a character to become complete.
WINDOW = 8
MAX_WAIT = 8
#: Prompt tokens that decide how an output begins: an open character has at most three bytes before this one.
PROMPT_TAIL = 8

_REPLACEMENT = "\ufffd"


class IncrementalDetokenizer:
    """Text of one sequence. Invariants: 1. push() results + flush() == the text of all tokens after the prompt;
    2. no result ends inside a character; 3. a token costs O(WINDOW), whatever came before.

    Invariant 1 has one exception: more than MAX_RUN byte tokens in a row that turn out not to be UTF-8. What was valid
    of them is out by then, and stays.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
        prompt_token_ids: Sequence[int] = (),
    ) -> None:
        """Args:
        prompt_token_ids: what the sequence goes on from. After text, the first output token keeps its leading
            space; at the beginning of all text SentencePiece takes it off.
        """
        self._skip = tokenizer.special_ids if skip_special_tokens else frozenset()
        pieces = tokenizer.pieces
        self._way: _ByteLevel | _ByteFallback | _Whole
        if pieces.kind == "byte_level":
            self._way = _ByteLevel(tokenizer)
        elif pieces.kind == "byte_fallback":
            self._way = _ByteFallback(tokenizer)
        else:
            self._way = _Whole(tokenizer, spaces_between_special_tokens)
        self._prime(prompt_token_ids)

    def push(self, token_ids: Iterable[int]) -> str:
        """Take the next tokens. Returns: the text they complete, often none."""
        return "".join([self._way.step(token_id) for token_id in token_ids if token_id not in self._skip])

    def flush(self) -> str:
        """What is still held, when no more tokens come; bytes of an open character become U+FFFD."""
        return self._way.flush()

    def _prime(self, prompt_token_ids: Sequence[int]) -> None:
        tail = [token_id for token_id in prompt_token_ids[-4 * PROMPT_TAIL :] if token_id not in self._skip]
        self.push(tail[-PROMPT_TAIL:])
        self._way.begin_output()


class _ByteLevel:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._piece = tokenizer.pieces.piece
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self, token_id: int) -> str:
        piece = self._piece(token_id)
        return self._decoder.decode(piece.data) if piece else ""

    def flush(self) -> str:
        return self._decoder.decode(b"", final=True)

    def begin_output(self) -> None:
        # Bytes of a character that the prompt left open stay: the output completes it.
        pass


class _ByteFallback:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._piece = tokenizer.pieces.piece
        self._spaces = LeadingSpaces(tokenizer.pieces.leading_spaces)
        self._run = bytearray()

    def step(self, token_id: int) -> str:
        piece = self._piece(token_id)
        if piece is None:
            return ""
        if piece.is_byte:
            self._run += piece.data
            return self._spaces.off(self._begin_of_run()) if len(self._run) > MAX_RUN else ""
        return self._spaces.off(self._end_of_run() + piece.data.decode("utf-8"))

    def flush(self) -> str:
        return self._spaces.off(self._end_of_run())

    def begin_output(self) -> None:
        # A run that the prompt left open is the prompt's text, except for an open character. It may have lost the
        # first bytes of its first character.
        seen = bool(self._run)
        while self._run and 0x80 <= self._run[0] < 0xC0:
            del self._run[0]
        self._spaces.off(self._begin_of_run())
        if seen:
            self._spaces.left = 0

    def _end_of_run(self) -> str:
        run = bytes(self._run)
        self._run.clear()
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            return _REPLACEMENT * len(run)

    def _begin_of_run(self) -> str:
        """Take the complete characters off the run; a run that cannot become valid goes out as U+FFFD."""
        try:
            text, used = codecs.utf_8_decode(bytes(self._run), "strict", False)
        except UnicodeDecodeError:
            return self._end_of_run()
        del self._run[:used]
        return text


class _Whole:
    def __init__(self, tokenizer: Tokenizer, spaces_between_special_tokens: bool) -> None:
        self._name = tokenizer.id_to_token
        self._decode: Callable[[list[int]], str] = lambda ids: tokenizer.decode(
            ids, skip_special_tokens=False, spaces_between_special_tokens=spaces_between_special_tokens
        )
        self._window: list[int] = []
        self._out = ""
        self._waiting = 0

    def step(self, token_id: int) -> str:
        if self._name(token_id) is None:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        self._waiting += 1
        is_open = text.endswith(_REPLACEMENT) or not text.startswith(self._out)
        return "" if is_open and self._waiting < MAX_WAIT else self._take(text)

    def flush(self) -> str:
        return self._take(self._decode(self._window)) if self._waiting else ""

    def begin_output(self) -> None:
        self.flush()

    def _take(self, text: str) -> str:
        new = text[len(self._out) :]
        self._waiting = 0
        if len(self._window) > WINDOW:
            tail = self._window[-(WINDOW // 2) :]
            # Tokens without text are no context: after them the library would begin a new text.
            if (shown := self._decode(tail)) or len(self._window) > 8 * WINDOW:
                self._window, text = tail, shown
        self._out = text
        return new
