"""Formats that write a call as f(city="Oslo", days=3) or f{city:…,days:3}: Llama 4, LFM 2, Olmo 3; Gemma.

    [f(city="Oslo"), g()]                                              Llama 3.2 and 4, as Python
    <|tool_call_start|>[f(city="Oslo")]<|tool_call_end|>               LFM 2
    <|tool_call>call:f{city:<|"|>Oslo<|"|>,days:3}<tool_call|>         Gemma 4

An argument goes out when it is over. Nothing is evaluated. Sources: the chat templates and descriptions the models are
published with.
"""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

from albireo.parsers.argument_values import is_json, python_as_json
from albireo.parsers.events import Event, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.formats.bracketed_forms import gemma_calls, python_calls
from albireo.parsers.held_end import could_begin
from albireo.parsers.json_scanner import MAX_DEPTH
from albireo.parsers.tool_parser import ToolParser, past_kept_blanks
from albireo.parsers.written_calls import WrittenCalls

_NAME = re.compile(r"[A-Za-z0-9_.:/-]*")
_KEY = re.compile(r"[\w\s.$-]*")
#: What a string of Python may have to be looked at for, by the quote that it began with.
_NEXT_IN_STRING = {quote: re.compile(rf"\\|{quote[0]}") for quote in ('"', "'", '"""', "'''")}
_BEHIND_STRINGS = " \t\r\n,)]}:"
#: Letters of a name or of a key; more are none.
_MAX_NAME = 256


class BracketedParser(ToolParser):
    """See ToolParser. A call begins with its first argument that can be read, or its end.

    Attributes:
        prefix: in front of a name. opening, closing: round arguments. assign: between a key and its value.
        quotes: what strings begin and end with.
        is_python: a backslash in a string takes the next character along, three quotes are one, and a quote behind
            which no value can end ends no string: models write 'it's'.
        is_list: calls stand in square brackets; they may be left out.
        end: what ends all calls; may be missing.
    """

    prefix: ClassVar[str] = ""
    opening: ClassVar[str] = "("
    closing: ClassVar[str] = ")"
    assign: ClassVar[str] = "="
    quotes: ClassVar[tuple[str, ...]] = ('"', "'")
    is_python: ClassVar[bool] = True
    is_list: ClassVar[bool] = True
    end: ClassVar[str] = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stops = re.compile("|".join(map(re.escape, (*self.quotes, *"()[]{},"))))
        self._in_list = self._is_closed = False
        self._name = self._key = ""
        self._parts: list[str] = []
        self._quote = ""
        self._depth = 0
        self._index = 0
        self._is_open = False
        self._has_arguments = False

    def as_json(self, value: str) -> str | None:
        """The JSON of a value as this format writes it; None for what is none."""
        return python_as_json(value)

    def finish(self) -> list[Event]:
        if self._is_open:
            self._out.append(ToolCallEnd(self._index, False))
            self._is_open, self._held, self._state = False, "", self._text
        return super().finish()

    # -- up to the arguments -------------------------------------------------------------------------------------------

    @past_kept_blanks
    def _behind_tag(self, buffer: str, pos: int) -> int:
        self._in_list, self._is_closed = self.is_list and buffer[pos] == "[", False
        if self._in_list:
            self._raw.append("[")
        self._state = self._before_name
        return pos + self._in_list

    @past_kept_blanks
    def _before_name(self, buffer: str, pos: int) -> int:
        found = self._expect(self.prefix, buffer, pos)
        if found is None:
            return pos
        if not found:
            self._give_back()
            return pos
        self._raw.append(self.prefix)
        self._name = ""
        self._state = self._in_name
        return pos + len(self.prefix)

    def _in_name(self, buffer: str, pos: int) -> int:
        match = _NAME.match(buffer, pos)
        end = min(match.end() if match else pos, pos + _MAX_NAME + 1 - len(self._name))
        self._name += buffer[pos:end]
        self._raw.append(buffer[pos:end])
        if end == len(buffer) and len(self._name) <= _MAX_NAME:
            return end
        if len(self._name) > _MAX_NAME or buffer[end] != self.opening or not self._is_name(self._name):
            self._give_back()
            return end
        self._raw.append(self.opening)
        self._has_arguments, self._key = False, ""
        self._state = self._in_key
        return end + 1

    # -- arguments -----------------------------------------------------------------------------------------------------

    def _in_key(self, buffer: str, pos: int) -> int:
        """The name of an argument, or the end of the call."""
        match = _KEY.match(buffer, pos)
        end = min(match.end() if match else pos, pos + _MAX_NAME + 1 - len(self._key))
        self._key += buffer[pos:end]
        self._keep(buffer[pos:end])
        if end == len(buffer) and len(self._key) <= _MAX_NAME:
            return end
        if len(self._key) > _MAX_NAME:
            return self._fail(end)
        self._key = self._key.strip()
        if buffer[end] == self.closing and not self._key:
            return self._close(end)
        if buffer[end] != self.assign or not self._key:
            return self._fail(end)
        self._keep(self.assign)
        self._parts, self._depth, self._quote = [], 0, ""
        self._state = self._in_value
        return end + 1

    def _in_value(self, buffer: str, pos: int) -> int:
        match = self._stops.search(buffer, pos)
        if match is None:
            end = len(buffer) - max(could_begin(quote, buffer, pos) for quote in self.quotes)
            self._waits = True
            return self._take(buffer[pos:end], end)
        self._take(buffer[pos : match.start()], pos)
        stop, end = match.group(), match.end()
        if self._depth == 0 and stop in (",", self.closing):
            return self._end_argument(stop, match.start())
        if stop in self.quotes:
            if self.is_python:
                head = buffer[match.start() : match.start() + 3]
                if len(head) < 3 and head == stop * len(head):
                    self._waits = True  # one quote, two, or three
                    return match.start()
                stop = head if head == stop * 3 else stop
                end = match.start() + len(stop)
            self._quote = stop
            self._state = self._in_string
        elif stop in "([{":
            self._depth += 1
        elif stop != ",":
            self._depth -= 1
        if not 0 <= self._depth <= MAX_DEPTH:
            return self._fail(match.start())
        return self._take(stop, end)

    def _in_string(self, buffer: str, pos: int) -> int:
        if self.is_python:
            return self._in_python_string(buffer, pos)
        end = buffer.find(self._quote, pos)
        if end < 0:
            self._waits = True
            end = len(buffer) - could_begin(self._quote, buffer, pos)
            return self._take(buffer[pos:end], end)
        self._state = self._in_value
        end += len(self._quote)
        return self._take(buffer[pos:end], end)

    def _in_python_string(self, buffer: str, pos: int) -> int:
        quote = self._quote
        match = _NEXT_IN_STRING[quote].search(buffer, pos)
        end = len(buffer) if match is None else match.start()
        self._take(_one_line(buffer[pos:end]), end, buffer[pos:end])
        if match is None:
            return end
        behind = end + len(quote if buffer[end] != "\\" else "\\")
        if behind >= len(buffer):  # what follows says what it is
            self._waits = True
            return end
        if buffer[end] == "\\":
            taken = buffer[end : behind + 1]
            return self._take(_one_line(taken), behind + 1, taken)
        if not buffer.startswith(quote, end):  # the first of three
            return self._take("\\" + buffer[end], end + 1, buffer[end])
        if len(quote) == 3 or buffer[behind] in _BEHIND_STRINGS:
            self._state = self._in_value
            return self._take(quote, behind)
        return self._take("\\" + quote, behind, quote)

    def _end_argument(self, stop: str, pos: int) -> int:
        value = self.as_json("".join(self._parts))
        if value is None:
            return self._fail(pos)
        self._begin()
        comma = ", " if self._has_arguments else ""
        self._more(f"{comma}{json.dumps(self._key, ensure_ascii=False)}: {value}")
        self._has_arguments, self._key = True, ""
        if stop == self.closing:
            return self._close(pos)
        self._state = self._in_key
        return pos + 1

    def _close(self, pos: int) -> int:
        self._begin()
        self._more("}")
        self._out.append(ToolCallEnd(self._index))
        self._is_open = False
        self._state = self._behind_call
        return pos + 1

    # -- behind a call -------------------------------------------------------------------------------------------------

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        """Another one, or the end of all."""
        if self._in_list and not self._is_closed:
            self._is_closed = buffer[pos] == "]"
            if buffer[pos] == ",":
                self._raw = [","]
                self._state = self._before_name
            elif not self._is_closed:
                self._end_call()
                return pos
            return pos + 1
        is_ended = self._expect(self.end, buffer, pos)
        if is_ended is None:
            return pos
        if is_ended or self._is_closed or not self._goes_on(buffer[pos]):
            self._end_call()
            return pos + (len(self.end) if is_ended else 0)
        self._raw = []
        self._state = self._before_name
        return pos

    def _goes_on(self, char: str) -> bool:
        """Whether a call may begin so, where they stand one behind another."""
        return False

    # -- small things --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if not self._is_open:
            self._index, self._is_open = self.num_calls, True
            self._note([ToolCallStart(self._index, self._new_id(self._index), self._name)])
            self._more("{")

    def _more(self, text: str) -> None:
        self._out.append(ToolCallArguments(self._index, text))

    def _take(self, text: str, pos: int, raw: str | None = None) -> int:
        """More of a value. Args: raw: as it was written."""
        self._parts.append(text)
        self._keep(text if raw is None else raw)
        return pos

    def _keep(self, text: str) -> None:
        """What may have to be given back."""
        if not self._is_open:
            self._raw.append(text)

    def _fail(self, pos: int) -> int:
        if self._is_open:
            self._out.append(ToolCallEnd(self._index, False))
            self._is_open = False
            self._end_call()
        else:
            self._give_back()
        return pos


def _one_line(text: str) -> str:
    """A part of a Python string with the line ends that it cannot hold as they are."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


class PythonicParser(BracketedParser):
    """Llama 3.2 and 4, as Python; see ToolParser. Without a mark calls stand at the beginning, in a list."""

    tags = ("<|python_start|>",)
    needs_mark = False
    end = "<|python_end|>"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = self._beginning

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser. An answer may begin with a bracket too, so nothing tells a call from it."""
        return python_calls("[", "]")

    @past_kept_blanks
    def _beginning(self, buffer: str, pos: int) -> int:
        if buffer[pos] == "[":
            self._state = self._behind_tag
        else:
            self._give_back()
        return pos


class Lfm2Parser(BracketedParser):
    """LFM 2 and 2.5."""

    tags = ("<|tool_call_start|>",)
    end = "<|tool_call_end|>"

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return python_calls("<|tool_call_start|>[", f"]{cls.end}", trigger=cls.tags[0])


class Olmo3Parser(BracketedParser):
    """Olmo 3: calls on lines of their own."""

    tags = ("<function_calls>",)
    end = "</function_calls>"
    needs_line = True
    keeps_special_tokens = False

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return python_calls(cls.tags[0], cls.end, separator="\n", trigger=cls.tags[0])

    def _goes_on(self, char: str) -> bool:
        return char.isalpha() or char == "_"


class Gemma4Parser(BracketedParser):
    """Gemma 4."""

    tags = ("<|tool_call>",)
    end = "<tool_call|>"
    prefix, opening, closing, assign = "call:", "{", "}", ":"
    quotes: ClassVar[tuple[str, ...]] = ('<|"|>',)
    is_python, is_list = False, False

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return gemma_calls(cls.tags[0], cls.quotes[0], cls.end)

    def as_json(self, value: str) -> str | None:
        texts = value.strip().split(self.quotes[0])
        parts = [json.dumps(text, ensure_ascii=False) if i % 2 else _bare(text) for i, text in enumerate(texts)]
        made = "".join(parts)
        return made if is_json(made) else None


class FunctionGemmaParser(Gemma4Parser):
    """FunctionGemma."""

    tags = ("<start_function_call>",)
    end = "<end_function_call>"
    quotes: ClassVar[tuple[str, ...]] = ("<escape>",)


_BARE_KEY = re.compile(r"([{,]\s*)([\w.$-]+)(\s*:)")
_BARE_WORD = re.compile(r"\b(None|True|False)\b")
_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}


def _bare(text: str) -> str:
    """What stands between strings, as JSON: keys get quotes."""
    text = _BARE_KEY.sub(lambda match: f"{match[1]}{json.dumps(match[2], ensure_ascii=False)}{match[3]}", text)
    return _BARE_WORD.sub(lambda match: _JSON_WORDS[match[0]], text)
