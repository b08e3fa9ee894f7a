"""The format of Muse Glimmer: an answer is messages, each with a header that says to whom it goes.

    <|start|>assistant to=self<|message|>…<|eom|>                           what it thinks
    <|start|>assistant to=f<|message|><atem:function_calls>
    <atem:invoke name="f">
    <atem:parameter name="city">Oslo</atem:parameter>
    </atem:invoke>
    </atem:function_calls><|eom|>                                           a tool call
    <|start|>assistant to=user<|message|>…<|eot|>                           the answer

The prompt ends behind <|start|>assistant; <|eot|> ends an output, and is not part of its text. Used by
output_parser.py, for reasoning and tool calls at once. Source: the chat template that the model is published with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from albireo.parsers.call_reader import NewId
from albireo.parsers.events import Event, ReasoningDelta, TextDelta
from albireo.parsers.formats.keyed_marks import KeyedMarks, written_calls
from albireo.parsers.formats.keyed_values import KeyedParser
from albireo.parsers.held_end import could_begin
from albireo.parsers.states import StateParser
from albireo.parsers.tool_parser import random_id
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, tag_node

_START, _MESSAGE = "<|start|>", "<|message|>"
#: What ends a message. The last begins another one, where a model left out the end of this.
_ENDS = ("<|eom|>", "<|eot|>", _START)
_HEADER = re.compile(r"\s*(?:<\|start\|>\s*assistant)?\s*(?:to=(?P<whom>[^\s<]+))?\s*")
_BEGINNINGS = (_START, "to=", _MESSAGE)
#: Characters of a header; longer ones are none.
_MOST_HEADER = 512
#: Between two messages that go to one place.
_BREAK = "\n"


class _Calls(KeyedParser):
    """What a message to a tool holds."""

    marks = KeyedMarks(
        section="<atem:function_calls>",
        opening=('<atem:invoke name="',),
        name_end='">',
        key='<atem:parameter name="',
        key_end='">',
        value_end="</atem:parameter>",
        closing=("</atem:invoke>",),
        section_end="</atem:function_calls>",
    )


class MuseParser(StateParser):
    """Text in, events out. What has no header is the answer; a call stands in a message to a tool alone.

    Invariants: 1. the events, joined, do not depend on how the text was cut; 2. nothing that ends a message is in them.

    Args:
        tool_names, new_id, schemas: see ToolParser.
        has_tools: else calls are part of the answer. has_reasoning: else what is thought is.
    """

    #: See ToolParser.
    keeps_special_tokens: ClassVar[bool] = True

    def __init__(
        self,
        tool_names: Collection[str] | None = None,
        new_id: NewId = random_id,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        has_tools: bool = True,
        has_reasoning: bool = True,
    ) -> None:
        super().__init__(self._header)
        self.num_calls = 0
        self._of_calls = (tool_names, new_id, schemas)
        self._has_tools, self._has_reasoning = has_tools, has_reasoning
        self._put: Callable[[str], None] = self._say
        self._calls: _Calls | None = None
        self._told: set[type] = set()
        self._broke: set[type] = set()

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser. Words with an equals sign may stand in any answer, so nothing tells a call from it."""
        return WrittenCalls(_written, separator=f"<|eom|>{_START}assistant")

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        if self._state == self._header:
            if not self._held.lstrip().startswith(_BEGINNINGS):
                self._say(self._held)
        else:
            self._put(self._held)
            self._end_message()
        self._held = ""
        return self._taken()

    def _header(self, buffer: str, pos: int) -> int:
        """Up to <|message|>, from the beginning of the output or behind the end of a message."""
        end = buffer.find(_MESSAGE, pos)
        head = buffer[pos : end if end >= 0 else len(buffer)]
        is_header = _may_be_header(buffer[pos : pos + 32]) and len(head) <= _MOST_HEADER
        match = _HEADER.fullmatch(head) if end >= 0 else None
        if not is_header or (end >= 0 and match is None):
            self._put, self._state = self._say, self._body
            start = pos + len(head) - len(head.lstrip())
            return start + len(_START) if buffer.startswith(_START, start) else pos
        if match is None:
            self._waits = True
            return pos
        self._begin_message(match["whom"])
        self._state = self._body
        return end + len(_MESSAGE)

    def _body(self, buffer: str, pos: int) -> int:
        found = [(at, end) for end in _ENDS if (at := buffer.find(end, pos)) >= 0]
        if found:
            at, end = min(found)
            self._put(buffer[pos:at])
            self._end_message()
            self._state = self._header
            return at if end == _START else at + len(end)
        at = len(buffer) - max(could_begin(end, buffer, pos) for end in _ENDS)
        self._put(buffer[pos:at])
        self._waits = True
        return at

    def _begin_message(self, whom: str | None) -> None:
        if whom == "self" and self._has_reasoning:
            self._put = self._think
        elif whom in (None, "self", "user") or not self._has_tools:
            self._put = self._say
        else:
            self._calls = _Calls(*self._of_calls)
            self._calls.num_calls = self.num_calls
            self._put = self._call

    def _end_message(self) -> None:
        if self._calls is not None:
            self._out += self._calls.finish()
            self.num_calls = self._calls.num_calls
            self._calls = None
        self._broke = set(self._told)
        self._put = self._say

    def _call(self, text: str) -> None:
        assert self._calls is not None, "begun"
        before = self._calls.num_scanned
        self._out += self._calls.push(text)
        self.num_scanned += self._calls.num_scanned - before

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


def _may_be_header(text: str) -> bool:
    """Whether text begins one, as far as it goes."""
    stripped = text.lstrip()
    return stripped.startswith(_BEGINNINGS) or any(begin.startswith(stripped) for begin in _BEGINNINGS)


def _written(tool: Tool) -> Node:
    marks = _Calls.marks
    call = written_calls(marks, has_lines=True).call(tool)
    return tag_node(f" to={tool.name}{_MESSAGE}{marks.section}\n", call, marks.section_end)
