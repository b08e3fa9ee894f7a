"""Reads one tool call written as a JSON object: {"name": "f", "arguments": {…}}, in the pieces in which it comes.

Used by the tool formats. Arguments go out while they come, once the name is known. Until then everything is kept, so
that what turns out to be no call can be given back as the text it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from albireo.parsers.events import Event, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.json_scanner import JsonScanner, Status, past_blanks

#: Names of keys, by those who trained the models.
_ARGUMENTS = ("arguments", "parameters")
_NAMES = ("name", "tool_name")
_KEYS = (*_ARGUMENTS, *_NAMES, "id", "tool_call_id", "type")

NewId = Callable[[int], str]


class CallReader:
    """Reads one object; read() never looks at a character twice.

    Attributes:
        status: OPEN, DONE behind the object's brace, FAILED where it cannot be a call, or is no JSON.
        has_started: a ToolCallStart went out; a failure after that ends the call, and gives nothing back.
        num_scanned: characters looked at so far.

    Args:
        index: of the call. new_id: makes its id, if the model wrote none before its arguments.
        is_strict: an object without arguments, or that begins with another key, is no call. For formats that do not
            mark their calls, where any JSON may be an answer.
        is_name: which names there are.
    """

    def __init__(self, index: int, new_id: NewId, is_name: Callable[[str], bool], *, is_strict: bool = False) -> None:
        self.status = Status.OPEN
        self.has_started = False
        self.num_scanned = 0
        self._index = index
        self._new_id = new_id
        self._is_name = is_name
        self._is_strict = is_strict
        self._raw: list[str] = []
        self._events: list[Event] = []
        self._step: Callable[[str, int], int] = self._open
        self._scanner = JsonScanner()
        self._captured: list[str] = []
        self._key: str | None = None
        self._name: str | None = None
        self._id: str | None = None
        self._arguments: str | None = None
        self._streams = False

    def read(self, text: str, pos: int) -> tuple[int, list[Event]]:
        """Go on at text[pos]. Returns: where it stopped reading, and what came of it."""
        start, end = pos, len(text)
        while pos < end and self.status is Status.OPEN:
            before = self._scanner.num_scanned
            pos = self._step(text, pos)
            self.num_scanned += self._scanner.num_scanned - before + 1
        if not self.has_started:
            self._raw.append(text[start:pos])
        if self.status is Status.FAILED and self.has_started:
            self._events.append(ToolCallEnd(self._index, False))
        events, self._events = self._events, []
        return pos, events

    def finish(self) -> list[Event]:
        """The output ends here, inside the object."""
        self.status = Status.FAILED
        return [ToolCallEnd(self._index, False)] if self.has_started else []

    def given_back(self) -> str:
        """The text so far, of what is no call."""
        return "" if self.has_started else "".join(self._raw)

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _fail(self, pos: int) -> int:
        self.status = Status.FAILED
        return pos

    def _open(self, text: str, pos: int) -> int:
        if text[pos] != "{":
            return self._fail(pos)
        self._step = self._before_key
        return pos + 1

    @past_blanks
    def _before_key(self, text: str, pos: int) -> int:
        if text[pos] != '"':
            return self._fail(pos)
        self._begin(self._read_key)
        return pos

    def _begin(self, step: Callable[[str, int], int]) -> None:
        self._scanner = JsonScanner()
        self._captured = []
        self._step = step

    def _scan(self, text: str, pos: int) -> int:
        end = self._scanner.scan(text, pos)
        self._captured.append(text[pos:end])
        if self._scanner.status is Status.FAILED:
            self.status = Status.FAILED
        return end

    def _read_key(self, text: str, pos: int) -> int:
        pos = self._scan(text, pos)
        if self._scanner.status is Status.DONE:
            is_first = self._key is None
            self._key = json.loads("".join(self._captured))
            if is_first and self._is_strict and self._key not in _KEYS:
                return self._fail(pos)
            self._step = self._colon
        return pos

    @past_blanks
    def _colon(self, text: str, pos: int) -> int:
        if text[pos] != ":":
            return self._fail(pos)
        self._step = self._before_value
        return pos + 1

    @past_blanks
    def _before_value(self, text: str, pos: int) -> int:
        self._begin(self._read_value)
        is_arguments = self._key in _ARGUMENTS and self._arguments is None
        self._streams = is_arguments and self._name is not None and text[pos] == "{"
        if self._streams:
            self._start()
        return pos

    def _read_value(self, text: str, pos: int) -> int:
        end = self._scan(text, pos)
        if self._streams:
            self._events.append(ToolCallArguments(self._index, text[pos:end]))
            self._captured.clear()
        if self._scanner.status is Status.DONE:
            self._step = self._after_value
            if not self._take(end):
                return self._fail(end)
        return end

    def _take(self, end: int) -> bool:
        """Note a value that is complete. Returns: False when no call has such a value."""
        if self._streams:
            self._arguments = ""
            return True
        if self.has_started or self._key not in _KEYS:
            return True
        raw = "".join(self._captured)
        if self._key in _ARGUMENTS:
            self._arguments = _arguments(raw)
            return self._arguments is not None
        value = json.loads(raw) if raw[0] == '"' else None
        if self._key in _NAMES and self._name is None:
            self._name = value if value is not None and self._is_name(value) else None
            return self._name is not None
        if self._key == "id" and value:
            self._id = value
        return True

    @past_blanks
    def _after_value(self, text: str, pos: int) -> int:
        if text[pos] == ",":
            self._step = self._before_key
            return pos + 1
        return self._close(pos) if text[pos] == "}" else self._fail(pos)

    def _close(self, pos: int) -> int:
        if not self.has_started:
            if self._name is None or (self._arguments is None and self._is_strict):
                return self._fail(pos)
            self._start()
            self._events.append(ToolCallArguments(self._index, self._arguments or "{}"))
        self._events.append(ToolCallEnd(self._index))
        self.status = Status.DONE
        return pos + 1

    def _start(self) -> None:
        assert self._name is not None, "known"
        self.has_started = True
        self._raw.clear()
        self._events.append(ToolCallStart(self._index, self._id or self._new_id(self._index), self._name))


def _arguments(raw: str) -> str | None:
    """Arguments that came before the name, or as a text of JSON; null is none. None when they are no object."""
    if raw[0] == "{":
        return raw
    if raw == "null":
        return "{}"
    text = json.loads(raw).strip() if raw[0] == '"' else ""
    scanner = JsonScanner()
    is_object = text.startswith("{") and scanner.scan(text, 0) == len(text) and scanner.status is Status.DONE
    return text if is_object else None
