"""Finds the end of one JSON value in a text that comes in pieces, and the place where it stops being JSON.

Used by call_reader.py. Builds no values; keeps of a text only a number that is not over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import TypeVar

#: Arrays and objects within each other; readers of JSON have such limits too.
MAX_DEPTH = 200

_BLANKS = re.compile(r"[ \t\n\r]*")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_NUMBER_PART = re.compile(r"[-+.0-9eE]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS = {"t": "rue", "f": "alse", "n": "ull"}


class Status(Enum):
    """OPEN: it goes on. DONE: the value is over. FAILED: this is no JSON."""

    OPEN = 0
    DONE = 1
    FAILED = 2


def behind_blanks(text: str, pos: int) -> int:
    """The place of the first character from pos on that JSON does not pass over, or len(text)."""
    match = _BLANKS.match(text, pos)
    return match.end() if match else pos


_Reader = TypeVar("_Reader")


def past_blanks(step: Callable[[_Reader, str, int], int]) -> Callable[[_Reader, str, int], int]:
    """A step that is taken at the first character that JSON does not pass over, once there is one."""

    @wraps(step)
    def taken(self: _Reader, text: str, pos: int) -> int:
        pos = behind_blanks(text, pos)
        return step(self, text, pos) if pos < len(text) else pos

    return taken


class JsonScanner:
    """Reads one value; scan() never looks at a character twice.

    Attributes:
        status: see Status. A number by itself is over with the character after it.
        num_scanned: characters looked at so far.
    """

    def __init__(self) -> None:
        self.status = Status.OPEN
        self.num_scanned = 0
        self._step = self._value
        self._closers: list[str] = []
        self._number_parts: list[str] = []
        self._word_rest = ""
        self._is_key = False
        self._hex_left = 0

    def scan(self, text: str, pos: int) -> int:
        """Go on at text[pos]. Returns: the place behind the value, the place of the first character that is wrong, or
        len(text)."""
        start, end = pos, len(text)
        while pos < end and self.status is Status.OPEN:
            pos = self._step(text, pos)
        self.num_scanned += pos - start + 1
        return pos

    def _fail(self, pos: int) -> int:
        self.status = Status.FAILED
        return pos

    def _ended(self, pos: int) -> int:
        if not self._closers:
            self.status = Status.DONE
        self._step = self._after
        return pos

    @past_blanks
    def _value(self, text: str, pos: int) -> int:
        char = text[pos]
        if char == "{" or char == "[":
            if len(self._closers) == MAX_DEPTH:
                return self._fail(pos)
            self._closers.append("}" if char == "{" else "]")
            self._step = self._first_key if char == "{" else self._first_item
            return pos + 1
        if char == '"':
            self._is_key = False
            self._step = self._string
            return pos + 1
        if char in "-0123456789":
            self._number_parts = []
            self._step = self._number
            return pos
        if char in _WORDS:
            self._word_rest = _WORDS[char]
            self._step = self._word
            return pos + 1
        return self._fail(pos)

    @past_blanks
    def _first_item(self, text: str, pos: int) -> int:
        if text[pos] == "]":
            return self._close(pos)
        self._step = self._value
        return pos

    @past_blanks
    def _first_key(self, text: str, pos: int) -> int:
        return self._close(pos) if text[pos] == "}" else self._key(text, pos)

    @past_blanks
    def _key(self, text: str, pos: int) -> int:
        if text[pos] != '"':
            return self._fail(pos)
        self._is_key = True
        self._step = self._string
        return pos + 1

    @past_blanks
    def _colon(self, text: str, pos: int) -> int:
        if text[pos] != ":":
            return self._fail(pos)
        self._step = self._value
        return pos + 1

    @past_blanks
    def _after(self, text: str, pos: int) -> int:
        if text[pos] == ",":
            self._step = self._key if self._closers[-1] == "}" else self._value
            return pos + 1
        return self._close(pos) if text[pos] == self._closers[-1] else self._fail(pos)

    def _close(self, pos: int) -> int:
        self._closers.pop()
        return self._ended(pos + 1)

    def _string(self, text: str, pos: int) -> int:
        match = _PLAIN.match(text, pos)
        pos = match.end() if match else pos
        if pos == len(text):
            return pos
        if text[pos] == '"':
            if not self._is_key:
                return self._ended(pos + 1)
            self._is_key = False
            self._step = self._colon
            return pos + 1
        if text[pos] != "\\":
            return self._fail(pos)
        self._step = self._escape
        return pos + 1

    def _escape(self, text: str, pos: int) -> int:
        if text[pos] == "u":
            self._hex_left = 4
            self._step = self._hex
        elif text[pos] in '"\\/bfnrt':
            self._step = self._string
        else:
            return self._fail(pos)
        return pos + 1

    def _hex(self, text: str, pos: int) -> int:
        if text[pos] not in "0123456789abcdefABCDEF":
            return self._fail(pos)
        self._hex_left -= 1
        if self._hex_left == 0:
            self._step = self._string
        return pos + 1

    def _number(self, text: str, pos: int) -> int:
        match = _NUMBER_PART.match(text, pos)
        end = match.end() if match else pos
        self._number_parts.append(text[pos:end])
        if end == len(text):
            return end
        return self._ended(end) if _NUMBER.fullmatch("".join(self._number_parts)) else self._fail(end)

    def _word(self, text: str, pos: int) -> int:
        if text[pos] != self._word_rest[0]:
            return self._fail(pos)
        self._word_rest = self._word_rest[1:]
        return pos + 1 if self._word_rest else self._ended(pos + 1)
