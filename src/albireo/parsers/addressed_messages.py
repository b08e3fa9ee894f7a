"""Answers that are messages, each with a header that says to whom it goes: what gpt-oss' and Muse's parsers share.

    <|start|>HEADER<|message|>TEXT<|end|>

The prompt ends within the first header. Does not know what a header says, nor what a call looks like.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

from albireo.parsers.events import Event, ReasoningDelta, TextDelta
from albireo.parsers.held_end import could_begin
from albireo.parsers.states import StateParser

START, MESSAGE = "<|start|>", "<|message|>"
#: Characters of a header; longer ones are none.
_MOST_HEADER = 512
#: Of a text, what tells whether a header begins there.
_MOST_BEGINNING = 32
#: Between two messages that go to one place.
_BREAK = "\n"


class AddressedMessages(StateParser):
    """Text in, events out. What has no header is the answer.

    Invariant: each character is in one message, so that no text keeps a parser from going on.

    Class attributes:
        ends: what ends a message. A START begins another one, where a model left out the end of this.
        beginnings: of a header; of an output's first one the prompt has START and the role.
        unsaid: those that are no answer where the output ends within a header.
    """

    ends: ClassVar[tuple[str, ...]]
    beginnings: ClassVar[tuple[str, ...]]
    unsaid: ClassVar[tuple[str, ...]]
    #: See ToolParser.
    keeps_special_tokens: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(self._header)
        self.num_calls = 0
        self._put: Callable[[str], None] = self._say
        self._told: set[type] = set()
        self._broke: set[type] = set()

    @abstractmethod
    def _reader_of(self, header: str) -> Callable[[str], None] | None:
        """What takes the texts of the message that begins. Returns: None where this is no header."""

    @abstractmethod
    def _end_call(self) -> None:
        """A message is over; it may have been a call."""

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        if self._state == self._header:
            if not self._held.lstrip().startswith(self.unsaid):
                self._say(self._held)
        else:
            self._put(self._held)
            self._end_message()
        self._held = ""
        return self._taken()

    def _header(self, buffer: str, pos: int) -> int:
        """Up to MESSAGE, from the beginning of the output or behind the end of a message."""
        end = buffer.find(MESSAGE, pos)
        head = buffer[pos : end if end >= 0 else len(buffer) - could_begin(MESSAGE, buffer, pos)]
        is_header = self._may_begin(buffer[pos : pos + _MOST_BEGINNING]) and len(head) <= _MOST_HEADER
        if is_header and end < 0:
            self._waits = True
            return pos
        reader = self._reader_of(head) if is_header else None
        self._put, self._state = reader or self._say, self._body
        if reader is not None:
            return end + len(MESSAGE)
        # it would end the message that it is in, which is empty, and be met again
        start = pos + len(head) - len(head.lstrip())
        return start + len(START) if buffer.startswith(START, start) else pos

    def _may_begin(self, text: str) -> bool:
        """Whether a header begins with text, as far as that goes."""
        stripped = text.lstrip()
        return stripped.startswith(self.beginnings) or any(each.startswith(stripped) for each in self.beginnings)

    def _body(self, buffer: str, pos: int) -> int:
        found = [(at, end) for end in self.ends if (at := buffer.find(end, pos)) >= 0]
        if found:
            at, end = min(found)
            self._put(buffer[pos:at])
            self._end_message()
            self._state = self._header
            return at if end == START else at + len(end)
        at = len(buffer) - max(could_begin(end, buffer, pos) for end in self.ends)
        self._put(buffer[pos:at])
        self._waits = True
        return at

    def _end_message(self) -> None:
        self._end_call()
        self._broke = set(self._told)
        self._put = self._say

    def _think(self, text: str) -> None:
        self._add(ReasoningDelta, text)

    def _say(self, text: str) -> None:
        self._add(TextDelta, text)

    def _add(self, kind: type[TextDelta] | type[ReasoningDelta], text: str) -> None:
        if not text:
            return
        if kind in self._broke:
            text = _BREAK + text
            self._broke.discard(kind)
        self._told.add(kind)
        self._out.append(kind(text))
