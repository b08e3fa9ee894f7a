"""What the parsers of tool calls have in common: text until a tag, a call read piece by piece, and text again.

A format says what comes behind its tag. Every character is looked at a bounded number of times, whatever the text and
however it is cut; nothing is evaluated; what turns out to be no call stays the text it was.
"""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import wraps
from typing import Any, ClassVar, TypeVar

from albireo.parsers.call_reader import CallReader, NewId
from albireo.parsers.events import Event, TextDelta, ToolCallStart
from albireo.parsers.held_end import could_begin
from albireo.parsers.json_scanner import Status, behind_blanks
from albireo.parsers.states import StateParser
from albireo.parsers.written_calls import WrittenCalls

#: As OpenAI has it, with the dots and slashes that some use to group their tools.
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,256}")
_ALPHABET = string.ascii_letters + string.digits


def random_id(index: int) -> str:
    """An id that every format takes: Mistral's templates want nine letters or digits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(9))


_Parser = TypeVar("_Parser", bound="ToolParser")


def past_kept_blanks(state: Callable[[_Parser, str, int], int]) -> Callable[[_Parser, str, int], int]:
    """A state behind blanks, which are part of what may be given back."""

    @wraps(state)
    def reached(self: _Parser, buffer: str, pos: int) -> int:
        pos = self._skip_blanks(buffer, pos)
        return state(self, buffer, pos) if pos < len(buffer) else pos

    return reached


class ToolParser(StateParser):
    """Text in, events out.

    Invariants: 1. the events, joined, do not depend on how the text was cut; 2. blanks between calls and round them are
    left out, all other text comes through.

    Attributes:
        tags: what begins a call, or several; none begins another one.
        left_out: marks that are none of the text, of formats that enclose answers, too.
        needs_line: amid text a mark is meant as one at the beginning of a line alone; of formats whose marks are text
            that somebody may talk about.
        needs_mark: without a mark nothing is a call.
        keeps_special_tokens: marks of the format are special tokens, at least of some of its models, so a text
            without special tokens has lost them.
        num_scanned: characters looked at so far; at most a constant times those pushed.

    Args:
        tool_names: of the request; a call of another is text. None: any name that could be one.
        new_id: index of a call -> its id.
        schemas: name of a tool -> the JSON schema of its arguments, for formats that do not write JSON.
        is_amid: the text is one in which calls are not expected: see needs_line.
    """

    tags: ClassVar[tuple[str, ...]]
    left_out: tuple[str, ...] = ()
    needs_line: ClassVar[bool] = False
    needs_mark: ClassVar[bool] = True
    keeps_special_tokens: ClassVar[bool] = True

    def __init__(
        self,
        tool_names: Collection[str] | None = None,
        new_id: NewId = random_id,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        is_amid: bool = False,
    ) -> None:
        super().__init__(self._text)
        self._only_lines = is_amid and self.needs_line
        self._last = "\n"
        self._schemas = schemas or {}
        self._tag = ""
        self.num_calls = 0
        self._names = None if tool_names is None else frozenset(tool_names)
        self._new_id = new_id
        #: Text that a call begins with, to give back if it is none; blanks that are text only if text follows.
        self._raw: list[str] = []
        self._blanks: list[str] = []
        self._is_fresh = True
        self._reader: CallReader | None = None

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        if self._reader is not None:
            self._out += self._reader.finish()
            self._raw.append(self._reader.given_back())
        if self._state != self._behind_call:
            self._say("".join([*self._raw, self._held]))
        if self.num_calls == 0 and self._blanks:
            self._out.append(TextDelta("".join(self._blanks)))
        self._raw, self._blanks, self._held, self._reader = [], [], "", None
        return self._taken()

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """How calls are written. Args: template: the chat template, where a format has several ways."""
        raise NotImplementedError

    def is_expected(self) -> None:
        """From here on calls are expected: see needs_line."""
        self._only_lines = False

    # -- for the formats -----------------------------------------------------------------------------------------------

    def _behind_tag(self, buffer: str, pos: int) -> int:
        """The state behind a tag; an object comes there, if a format says nothing else."""
        return self._before_object(buffer, pos)

    def _behind_call(self, buffer: str, pos: int) -> int:
        """The state behind an object that is a call."""
        raise NotImplementedError

    def _text(self, buffer: str, pos: int) -> int:
        marks = (*self.tags, *self.left_out)
        found = [(start, mark) for mark in marks if (start := buffer.find(mark, pos)) >= 0]
        if found:
            start, mark = min(found)
            before = self._last if start == pos else buffer[start - 1]
            self._last = mark[-1]
            if self._only_lines and before != "\n":
                self._say(buffer[pos : start + len(mark)])
                return start + len(mark)
            self._say(buffer[pos:start])
            if mark in self.tags:
                self._tag, self._raw = mark, [mark]
                self._state = self._behind_tag
            return start + len(mark)
        end = len(buffer) - max(could_begin(mark, buffer, pos) for mark in marks)
        self._say(buffer[pos:end])
        self._last = buffer[end - 1] if end > pos else self._last
        self._waits = True
        return end

    def _skip_blanks(self, buffer: str, pos: int) -> int:
        """Take blanks as part of what may be given back."""
        end = behind_blanks(buffer, pos)
        self._raw.append(buffer[pos:end])
        return end

    @past_kept_blanks
    def _before_object(self, buffer: str, pos: int) -> int:
        self._begin_object()
        return pos

    def _begin_object(self, *, is_strict: bool = False) -> None:
        """Read a call's object from the next character on."""
        self._reader = CallReader(self.num_calls, self._new_id, self._is_name, is_strict=is_strict)
        self._state = self._object

    def _object(self, buffer: str, pos: int) -> int:
        reader = self._reader
        assert reader is not None, "begun"
        before = reader.num_scanned
        end, events = reader.read(buffer, pos)
        self.num_scanned += reader.num_scanned - before
        self._note(events)
        if reader.status is not Status.OPEN:
            self._reader = None
        if reader.status is Status.DONE:
            self._state = self._behind_call
        elif reader.status is Status.FAILED:
            self._raw.append(reader.given_back())
            self._give_back()
        return end

    def _note(self, events: list[Event]) -> None:
        """Events of a call."""
        if any(isinstance(event, ToolCallStart) for event in events):
            self.num_calls += 1
            self._raw, self._blanks = [], []
        self._out += events

    def _give_back(self) -> None:
        """What was begun is no call: it is text, and text follows."""
        self._say("".join(self._raw))
        self._raw = []
        self._state = self._text

    def _end_call(self) -> None:
        """A call and what belongs to it is over: text may follow, or another tag."""
        self._raw = []
        self._is_fresh = True
        self._state = self._text

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._is_fresh:
            if not text.strip():
                self._blanks.append(text)
                return
            text = "".join([*self._blanks, text])
            self._blanks, self._is_fresh = [], False
        self._out.append(TextDelta(text))

    def _expect(self, wanted: str, buffer: str, pos: int) -> bool | None:
        """Whether buffer goes on with wanted at pos; None, and waiting for more, when that is not known yet."""
        if buffer.startswith(wanted, pos):
            return True
        rest = len(buffer) - pos
        if rest < len(wanted) and wanted.startswith(buffer[pos:]):
            self._waits = True
            return None
        return False

    def _first_of(self, marks: Sequence[str], buffer: str, pos: int) -> str | None:
        """Which of these the buffer goes on with; "": none; None, and waiting for more, when that is not known yet."""
        for mark in marks:
            if buffer.startswith(mark, pos):
                return mark
        rest = buffer[pos:]
        if any(len(rest) < len(mark) and mark.startswith(rest) for mark in marks):
            self._waits = True
            return None
        return ""

    def _is_name(self, name: str) -> bool:
        return _NAME.fullmatch(name) is not None and (self._names is None or name in self._names)


class MarkedText(ToolParser):
    """Text without calls, whose marks are left out. Args: left_out: see ToolParser."""

    tags = ()

    def __init__(self, left_out: tuple[str, ...]) -> None:
        super().__init__()
        self.left_out = left_out
