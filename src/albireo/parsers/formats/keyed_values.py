"""Formats that write each argument between marks of its own, as text: Qwen 3 Coder and 3.5, GLM 4.5, MiniMax M2, …

    <tool_call><function=f><parameter=city>Oslo</parameter></function></tool_call>          Qwen, Nemotron 3, Step 3.5
    <tool_call>f<arg_key>city</arg_key><arg_value>Oslo</arg_value></tool_call>               GLM
    <minimax:tool_call><invoke name="f"><parameter name="city">Oslo</parameter></invoke></minimax:tool_call>

Strings have no quotes, so a tool's schema says what a value is; one that the schema says is a string goes out while it
comes, others when they are over. Sources: the chat templates the models are published with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from albireo.parsers.argument_values import as_json, is_text, property_kinds
from albireo.parsers.events import Event, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.formats.keyed_marks import KeyedMarks, invoked, written_calls
from albireo.parsers.held_end import could_begin
from albireo.parsers.json_scanner import past_blanks
from albireo.parsers.tool_parser import ToolParser, past_kept_blanks
from albireo.parsers.written_calls import WrittenCalls

_WORD = re.compile(r"[A-Za-z0-9_.:/-]*")
#: Letters of a name; more are none.
_MAX_NAME = 256


class KeyedParser(ToolParser):
    """See ToolParser. A call begins with its name: what goes wrong behind it ends it, and is text.

    Attributes: has_lines: marks are written on lines of their own.
    """

    marks: ClassVar[KeyedMarks]
    has_lines: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        cls.tags = cls.marks.tags

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._expected: list[str] = []
        self._word = ""
        self._schema: Mapping[str, Any] = {}
        self._index = 0
        self._is_open = False
        self._has_arguments = False
        self._kinds: frozenset[str] = frozenset()
        self._streams = False
        self._parts: list[str] = []
        self._value_end = ""
        self._newline = ""

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return written_calls(cls.marks, has_lines=cls.has_lines)

    def finish(self) -> list[Event]:
        if self._is_open:
            self._end(is_complete=False)
            self._held = ""
        return super().finish()

    # -- up to the name ------------------------------------------------------------------------------------------------

    def _behind_tag(self, buffer: str, pos: int) -> int:
        opening = self.marks.opening
        self._expected = list(opening[1:] if self._tag == opening[0] else opening)
        if self._tag == opening[-1]:
            self._expected = []
        self._state = self._opening
        return pos

    def _opening(self, buffer: str, pos: int) -> int:
        if not self._expected:
            self._word = ""
            self._state = self._name
            return pos
        pos = self._skip_blanks(buffer, pos)
        if pos == len(buffer):
            return pos
        found = self._expect(self._expected[0], buffer, pos)
        if found:
            mark = self._expected.pop(0)
            self._raw.append(mark)
            return pos + len(mark)
        if found is False:
            self._give_back()
        return pos

    def _name(self, buffer: str, pos: int) -> int:
        match = _WORD.match(buffer, pos)
        end = min(match.end() if match else pos, pos + _MAX_NAME + 1 - len(self._word))
        self._word += buffer[pos:end]
        self._raw.append(buffer[pos:end])
        if len(self._word) > _MAX_NAME:
            self._give_back()
            return end
        if end == len(buffer):
            return end
        found = self._expect(self.marks.name_end, buffer, end)
        if found is None:
            return end
        if not found or not self._is_name(self._word):
            self._give_back()
            return end
        self._schema = self._schemas.get(self._word, {})
        self._is_open, self._has_arguments = True, False
        self._index = self.num_calls
        self._note([ToolCallStart(self._index, self._new_id(self._index), self._word), self._more("{")])
        self._state = self._behind_name
        return end + len(self.marks.name_end)

    def _behind_name(self, buffer: str, pos: int) -> int:
        """What a format has between a name and its arguments."""
        self._state = self._between
        return pos

    # -- arguments -----------------------------------------------------------------------------------------------------

    @past_blanks
    def _between(self, buffer: str, pos: int) -> int:
        """An argument, or the end of the call."""
        mark = self._first_of(self._argument_marks(), buffer, pos)
        if mark is None:
            return pos
        if mark == self.marks.key:
            self._word = ""
            self._state = self._key
        elif mark:
            self._out.append(self._more("}"))
            self._end(is_complete=True)
            self._expected = list(self.marks.closing[self.marks.closing.index(mark) + 1 :])
            self._state = self._behind_call
            if not self._expected and not self.marks.section:
                self._end_call()
        else:
            self._fail()
        return pos + len(mark)

    def _argument_marks(self) -> tuple[str, ...]:
        """What may come where an argument is over, or none was."""
        return (self.marks.key, *self.marks.closing)

    def _key(self, buffer: str, pos: int) -> int:
        mark = self.marks.key_end
        start = buffer.find(mark, pos)
        end = len(buffer) - could_begin(mark, buffer, pos) if start < 0 else start
        self._word += buffer[pos:end]
        if len(self._word) > _MAX_NAME:
            self._fail()
            return end
        if start < 0:
            self._waits = True
            return end
        self._word = self._word.strip()
        if self.marks.value:
            self._state = self._before_value
        else:
            self._begin_value(None)
        return start + len(mark)

    @past_blanks
    def _before_value(self, buffer: str, pos: int) -> int:
        mark = self._first_of([mark for mark, _ in self.marks.value], buffer, pos)
        if mark:
            self._begin_value(dict(self.marks.value)[mark])
            return pos + len(mark)
        if mark is not None:
            self._fail()
        return pos

    def _begin_value(self, is_string: bool | None) -> None:
        self._kinds = property_kinds(self._schema, self._word)
        if is_string is not None:
            self._kinds = frozenset({"string"}) if is_string else self._kinds - {"string"} or self._kinds
        self._streams, self._parts, self._newline = is_text(self._kinds), [], ""
        head = f"{', ' if self._has_arguments else ''}{json.dumps(self._word, ensure_ascii=False)}: "
        self._has_arguments = True
        self._out.append(self._more(head + ('"' if self._streams else "")))
        self._value_end = self.marks.value_end
        if self.marks.quotes is not None:
            self._state = self._quote
        else:
            self._state = self._first_line if self.marks.strips_lines else self._value

    def _quote(self, buffer: str, pos: int) -> int:
        assert self.marks.quotes is not None, "asked for"
        opening, closing = self.marks.quotes
        found = self._expect(opening, buffer, pos)
        if found is None:
            return pos
        if found:
            self._value_end = closing + self.marks.value_end
        self._state = self._value
        return pos + len(opening) * found

    def _first_line(self, buffer: str, pos: int) -> int:
        self._state = self._value
        return pos + (buffer[pos] == "\n")

    def _value(self, buffer: str, pos: int) -> int:
        mark = self._value_end
        start = buffer.find(mark, pos)
        end = len(buffer) - could_begin(mark, buffer, pos) if start < 0 else start
        self._take(buffer[pos:end])
        if start < 0:
            self._waits = True
            return end
        if self._newline and not self.marks.strips_lines:
            self._put(self._newline)
        value = "" if self._streams else as_json("".join(self._parts), self._kinds)
        self._out.append(self._more('"' if self._streams else value))
        self._state = self._between
        return start + len(mark)

    def _take(self, text: str) -> None:
        """More of a value; a line end waits until it is known not to be the last."""
        if not text:
            return
        text = self._newline + text
        self._newline = "\n" if text[-1] == "\n" else ""
        self._put(text.removesuffix("\n"))

    def _put(self, text: str) -> None:
        if self._streams:
            self._out.append(self._more(json.dumps(text, ensure_ascii=False)[1:-1]))
        else:
            self._parts.append(text)

    # -- behind a call -------------------------------------------------------------------------------------------------

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        """What else ends it, and where calls stand in a section, the next one, or the section's end."""
        marks = self.marks
        wanted = [*self._expected, *((marks.opening[0], marks.section_end) if marks.section else ())]
        mark = self._first_of(wanted, buffer, pos)
        if mark is None:
            return pos
        if mark in self._expected:
            self._expected = self._expected[self._expected.index(mark) + 1 :]
            if not self._expected and not marks.section:
                self._end_call()
        elif mark and mark == marks.opening[0]:
            self._raw, self._expected = [mark], list(marks.opening[1:])
            self._state = self._opening
        else:
            self._end_call()
        return pos + len(mark)

    # -- small things --------------------------------------------------------------------------------------------------

    def _more(self, text: str) -> ToolCallArguments:
        return ToolCallArguments(self._index, text)

    def _end(self, *, is_complete: bool) -> None:
        self._out.append(ToolCallEnd(self._index, is_complete))
        self._is_open = False

    def _fail(self) -> None:
        self._end(is_complete=False)
        self._end_call()


class Qwen3CoderParser(KeyedParser):
    """Qwen 3 Coder, Qwen 3.5, Nemotron 3, Step 3.5."""

    marks = KeyedMarks(
        opening=("<tool_call>", "<function="),
        name_end=">",
        key="<parameter=",
        key_end=">",
        value_end="</parameter>",
        closing=("</function>", "</tool_call>"),
        strips_lines=True,
    )
    needs_line = True
    keeps_special_tokens = False


class SeedOssParser(KeyedParser):
    """Seed-OSS."""

    marks = replace(
        Qwen3CoderParser.marks,
        opening=("<seed:tool_call>", "<function="),
        closing=("</function>", "</seed:tool_call>"),
        strips_lines=False,
    )


class Glm45Parser(KeyedParser):
    """GLM 4.5 to 4.7, Ling 3."""

    marks = KeyedMarks(
        opening=("<tool_call>",),
        name_end="",
        key="<arg_key>",
        key_end="</arg_key>",
        value=(("<arg_value>", None),),
        value_end="</arg_value>",
        closing=("</tool_call>",),
    )
    needs_line = True

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return written_calls(cls.marks, has_lines="</arg_key><arg_value>" not in template)


class MiniMaxM2Parser(KeyedParser):
    """MiniMax M2."""

    marks = invoked("", "minimax:tool_call")


class DeepSeekV32Parser(KeyedParser):
    """DeepSeek V3.2; a value says whether it is a string."""

    marks = replace(
        invoked("｜DSML｜", "｜DSML｜function_calls"),
        key_end='"',
        value=(('string="true">', True), ('string="false">', False)),
    )


class DeepSeekV4Parser(KeyedParser):
    """DeepSeek V4: as V3.2, but for the name of the section."""

    marks = replace(DeepSeekV32Parser.marks, section="<｜DSML｜tool_calls>", section_end="</｜DSML｜tool_calls>")


class Step3Parser(KeyedParser):
    """Step 3, as vLLM reads it: no template of it was seen. (Step 3.5 writes as Qwen does.)"""

    marks = replace(
        invoked("steptml:", "｜tool_calls_begin｜"),
        opening=("<｜tool_call_begin｜>", "function<｜tool_sep｜>", '<steptml:invoke name="'),
        closing=("</steptml:invoke>", "<｜tool_call_end｜>"),
        section_end="<｜tool_calls_end｜>",
    )
    has_lines = False


class MiniCpm5Parser(KeyedParser):
    """MiniCPM 5; strings with angle brackets or line ends stand in CDATA."""

    marks = KeyedMarks(
        opening=('<function name="',),
        name_end='">',
        key='<param name="',
        key_end='">',
        quotes=("<![CDATA[", "]]>"),
        value_end="</param>",
        closing=("</function>",),
    )
    has_lines = False
    needs_line = True
    keeps_special_tokens = False


class HunyuanV3Parser(KeyedParser):
    """Hunyuan 3; its marks end with what the checkpoint is called."""

    marks = KeyedMarks(
        section="<tool_calls:opensource>",
        opening=("<tool_call:opensource>",),
        name_end="<tool_sep:opensource>",
        key="<arg_key:opensource>",
        key_end="</arg_key:opensource>",
        value=(("<arg_value:opensource>", None),),
        value_end="</arg_value:opensource>",
        closing=("</tool_call:opensource>",),
        section_end="</tool_calls:opensource>",
    )
