"""Formats that write the name of a function in front of its arguments, and those as JSON: DeepSeek, Kimi, Solar, …

    <｜tool▁call▁begin｜>f<｜tool▁sep｜>{…}<｜tool▁call▁end｜>                                   DeepSeek V3.1
    <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{…}<|tool_call_end|>           Kimi K2
    [{"f": {…}}, {"g": {…}}]                                                                   Apertus
    <function=f>{…}</function>                                                                 Functionary 3.1

Sources: the chat templates the models are published with.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from albireo.parsers.named_json import NamedJsonParser
from albireo.parsers.tool_parser import past_kept_blanks
from albireo.parsers.written_calls import (
    Node,
    Tool,
    WrittenCalls,
    regex_node,
    schema_node,
    sequence,
    tag_node,
    text_node,
)

#: Characters between what begins a call and its arguments; more are none.
_MAX_HEAD = 512


class HeadedJsonParser(NamedJsonParser):
    """See ToolParser.

    Attributes:
        section, section_end: round all calls.
        call: what begins one. head: what is between that and its arguments, with groups `name` and perhaps `id`.
        tail: what may end one, in this order; each may be missing.
        separators: what may be between two.
    """

    section: ClassVar[str]
    section_end: ClassVar[str]
    call: ClassVar[str]
    head: ClassVar[re.Pattern[str]]
    tail: ClassVar[tuple[str, ...]]
    separators: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head: list[str] = []
        self._tail: list[str] = []

    @past_kept_blanks
    def _behind_tag(self, buffer: str, pos: int) -> int:
        """What begins a call, in front of the first one."""
        found = self._expect(self.call, buffer, pos)
        if found:
            return self._begin_call(pos)
        if found is False:
            self._give_back()
        return pos

    def _begin_call(self, pos: int) -> int:
        self._raw.append(self.call)
        self._head = []
        self._state = self._before_arguments
        return pos + len(self.call)

    def _before_arguments(self, buffer: str, pos: int) -> int:
        # so far and no further, however much of the text has come
        most = pos + _MAX_HEAD - sum(map(len, self._head))
        start = buffer.find("{", pos, most + 1)
        end = min(len(buffer), most) if start < 0 else start
        self._head.append(buffer[pos:end])
        self._raw.append(buffer[pos:end])
        if start < 0 and len(buffer) <= most:
            return end
        match = self.head.fullmatch("".join(self._head))
        if match is None or not self._is_name(match["name"]):
            self._give_back()
            return end
        self._begin_arguments(match["name"], match.groupdict().get("id"))
        return end

    def _behind_arguments(self) -> None:
        self._tail = list(self.tail)
        self._state = self._behind_call

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        """What ends a call, then another one, or the end of all."""
        mark = self._first_of((*self._tail, *self.separators, self.call, self.section_end), buffer, pos)
        if mark is None:
            return pos
        if mark in self._tail:
            self._tail = self._tail[self._tail.index(mark) + 1 :]
        elif mark == self.call:
            self._raw = []
            return self._begin_call(pos)
        elif mark not in self.separators:
            self._end_call()
        return pos + len(mark)


class DeepSeekV31Parser(HeadedJsonParser):
    """DeepSeek V3.1; see ToolParser. V3 and R1 are read, too."""

    section, section_end = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
    call = "<｜tool▁call▁begin｜>"
    tags = (section,)
    head = re.compile(r"(?:(?P<kind>\w+)<｜tool▁sep｜>(?P<old>))?(?P<name>[^\s<]+)\s*(?(old)```json|<｜tool▁sep｜>)\s*")
    tail = ("```", "<｜tool▁call▁end｜>")

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return _written(cls, lambda tool: f"{tool.name}<｜tool▁sep｜>", "<｜tool▁call▁end｜>")


class DeepSeekV3Parser(DeepSeekV31Parser):
    """DeepSeek V3 and R1: names follow the kind of tool, JSON stands in a block of Markdown."""

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return _written(
            cls,
            lambda tool: f"function<｜tool▁sep｜>{tool.name}\n```json\n",
            "\n```<｜tool▁call▁end｜>",
            separator="\n",
        )


class KimiK2Parser(HeadedJsonParser):
    """Kimi K2. A call's id is what the model wrote: its template reads the name of an answer's function from it. Amid
    thoughts the model may forget what begins all calls."""

    section, section_end = "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"
    call = "<|tool_call_begin|>"
    tags = (section, call)
    head = re.compile(r"\s*(?P<id>(?:functions\.)?(?P<name>[^\s<:]+)(?::\d+)?)\s*<\|tool_call_argument_begin\|>\s*")
    tail = ("<|tool_call_end|>",)

    def _behind_tag(self, buffer: str, pos: int) -> int:
        if self._tag == self.section:
            return super()._behind_tag(buffer, pos)
        self._raw = []
        return self._begin_call(pos - len(self.call))

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            number = regex_node("0|[1-9][0-9]{0,2}")
            rest = [number, text_node("<|tool_call_argument_begin|>"), schema_node(tool.parameters)]
            return tag_node(f"{cls.call}functions.{tool.name}:", sequence(rest), "<|tool_call_end|>")

        return WrittenCalls(call, begin=cls.section, end=cls.section_end, trigger=cls.section)


class SolarOpenParser(HeadedJsonParser):
    """Solar Open, which writes an id in front of the name."""

    section, section_end = "<|tool_calls|>", "<|calls|>"
    call = "<|tool_call:begin|>"
    tags = (section,)
    head = re.compile(r"(?P<id>[^\s<]*)<\|tool_call:name\|>(?P<name>[^\s<]+)<\|tool_call:args\|>\s*")
    tail = ("<|tool_call:end|>",)

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            head = text_node(f"<|tool_call:name|>{tool.name}<|tool_call:args|>")
            inner = sequence([regex_node("[a-zA-Z0-9]{9}"), head, schema_node(tool.parameters)])
            return tag_node(cls.call, inner, "<|tool_call:end|>")

        return WrittenCalls(call, begin=cls.section, end=cls.section_end, trigger=cls.section)


class FunctionaryParser(HeadedJsonParser):
    """Functionary 3.1: calls stand by themselves. (3.2 writes to whom each message goes, and is not read.)"""

    section = call = "<function="
    section_end = "</function>"
    tags = (call,)
    head = re.compile(r"(?P<name>[^\s<>]+)>\s*")
    tail = ()
    needs_line = True
    keeps_special_tokens = False

    def _behind_tag(self, buffer: str, pos: int) -> int:
        self._raw = []
        return self._begin_call(pos - len(self.call))

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            return tag_node(f"{cls.call}{tool.name}>", schema_node(tool.parameters), cls.section_end)

        return WrittenCalls(call, trigger=cls.call)


class ApertusParser(HeadedJsonParser):
    """Apertus: a list of objects, each of which has one key, the name."""

    section, section_end = "<|tools_prefix|>", "]<|tools_suffix|>"
    call = '{"'
    tags = (section,)
    head = re.compile(r'(?P<name>[^"\s]+)"\s*:\s*')
    tail = ("}",)
    separators = (",",)

    @past_kept_blanks
    def _behind_tag(self, buffer: str, pos: int) -> int:
        if buffer[pos] != "[":
            self._give_back()
            return pos
        self._raw.append("[")
        self._state = super()._behind_tag
        return pos + 1

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            return tag_node(f'{{"{tool.name}": ', schema_node(tool.parameters), "}")

        begin = f"{cls.section}["
        return WrittenCalls(call, separator=", ", begin=begin, end=cls.section_end, trigger=cls.section)


def _written(parser: type[HeadedJsonParser], head: Any, end: str, separator: str = "") -> WrittenCalls:
    def call(tool: Tool) -> Node:
        return tag_node(parser.call + head(tool), schema_node(tool.parameters), end)

    return WrittenCalls(call, separator=separator, begin=parser.section, end=parser.section_end, trigger=parser.section)
