"""What one token contributes to the text: its bytes, read off the tokenizer's own decoder.

Called by tokenizer.py and tekken.py. Does not know sequences: how pieces join is the detokenizer's matter.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    import tokenizers

#: How tokens become text.
#: byte_level: every character of a token stands for a byte (GPT-2, Llama 3, Qwen, Falcon).
#: byte_fallback: tokens are text, "▁" a space, and <0x41> one byte (SentencePiece: Llama 2, Mistral, Phi-3, Gemma).
#: whole: anything else; only the library's decoder knows.
Kind = Literal["byte_level", "byte_fallback", "whole"]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Piece(NamedTuple):
    """data: bytes of the token's text; is_byte: it is one raw byte, which becomes text with its neighbours only."""

    data: bytes
    is_byte: bool


class LeadingSpaces:
    """What decoding takes off the very beginning of a text. Attributes: left: spaces that it still would."""

    def __init__(self, left: int) -> None:
        self.left = left

    def off(self, text: str) -> str:
        """The next text, without them."""
        while self.left and text.startswith(" "):
            text = text[1:]
            self.left -= 1
        if text:
            self.left = 0
        return text


class Pieces:
    """The pieces of one vocabulary, looked up when first asked for and kept.

    Attributes:
        kind: see Kind; for "whole" there are no pieces to ask for.
        leading_spaces: spaces that decoding takes off the very beginning of a text.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self.kind, self._space, self.leading_spaces = _read_decoder(backend)
        self._bytes = byte_level_alphabet() if self.kind == "byte_level" else {}
        self._known: dict[int, Piece | None] = {}

    def piece(self, token_id: int) -> Piece | None:
        """The piece of a token, None for an id without one (models have rows beyond their vocabulary).

        Cost: a dictionary look-up after the first time.
        """
        try:
            return self._known[token_id]
        except KeyError:
            token = self._backend.id_to_token(token_id)
            piece = None if token is None else self._make(token)
            self._known[token_id] = piece
            return piece

    def _make(self, token: str) -> Piece:
        if self.kind == "byte_level":
            try:
                return Piece(bytes([self._bytes[character] for character in token]), False)
            except KeyError:
                # An added token outside the alphabet is its own text, as in the library.
                return Piece(token.encode("utf-8"), False)
        token = token.replace(self._space, " ")
        match = _BYTE_TOKEN.fullmatch(token)
        return Piece(bytes([int(match[1], 16)]), True) if match else Piece(token.encode("utf-8"), False)


def _read_decoder(backend: tokenizers.Tokenizer) -> tuple[Kind, str, int]:
    """Kind, the mark that stands for a space, and how many leading spaces are taken off."""
    if backend.decoder is None:
        return "whole", "", 0
    state: dict[str, Any] = json.loads(backend.decoder.__getstate__())
    if state["type"] == "ByteLevel":
        return "byte_level", "", 0
    if state["type"] != "Sequence":
        return "whole", "", 0
    steps: list[Any] = state["decoders"]
    names = [step["type"] for step in steps]
    if names == ["ByteLevel"]:
        return "byte_level", "", 0
    if names not in (["Replace", "ByteFallback", "Fuse"], ["Replace", "ByteFallback", "Fuse", "Strip"]):
        return "whole", "", 0
    mark = steps[0]["pattern"].get("String")
    strip: dict[str, Any] = steps[3] if len(steps) == 4 else {"content": " ", "start": 0, "stop": 0}
    if not mark or steps[0]["content"] != " " or strip["content"] != " " or strip["stop"] != 0:
        return "whole", "", 0
    return "byte_fallback", mark, strip["start"]


def byte_level_alphabet() -> dict[str, int]:
    """Character -> byte. Printable bytes stand for themselves, the rest take the characters from U+0100 on.

    Source: encoder.py of GPT-2 (bytes_to_unicode).
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet.update({chr(256 + index): byte for index, byte in enumerate(hidden)})
    return alphabet
