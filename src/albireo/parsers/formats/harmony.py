"""The format of gpt-oss, harmony: an answer is messages, each with a header that says where it goes.

    <|channel|>analysis<|message|>…<|end|>                                  what it thinks
    <|start|>assistant<|channel|>final<|message|>…<|return|>                the answer
    <|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{…}<|call|>    a tool call
    <|start|>assistant<|channel|>commentary<|message|>…<|end|>              said before calls

The prompt ends behind <|start|>assistant; <|return|> and <|call|> end an output, and are not part of its text. Used by
output_parser.py, for reasoning and tool calls at once. Source: OpenAI's description of the harmony response format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import ClassVar

from albireo.parsers.call_reader import NewId
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.held_end import could_begin
from albireo.parsers.json_scanner import JsonScanner, Status, behind_blanks
from albireo.parsers.states import StateParser
from albireo.parsers.tool_parser import random_id
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, schema_node, tag_node

_MESSAGE = "<|message|>"
#: What ends a message. The last begins another one, where a model left out the end of this.
_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")
_START = "<|start|>"
_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
#: A header's beginning; of an output's first one the prompt has the start and the role.
_BEGINNINGS = (_START, "<|channel|>", "<|constrain|>", _MESSAGE, "to=")
#: Characters of a header; longer ones are none.
_MOST_HEADER = 512
_FUNCTIONS = "functions."
#: What a call begins with; its function's name follows.
_CALL = "<|channel|>commentary to=functions."
#: Between two messages that go to one place.
_BREAK = "\n"


class HarmonyParser(StateParser):
    """Text in, events out. What has no header is the answer.

    Invariants: 1. the events, joined, do not depend on how the text was cut; 2. no marker is in them.

    Args:
        tool_names: of the request; what is for another function, or for another tool, is thought. None: any.
        has_tools: else the arguments of a call are part of the answer.
        has_reasoning: else what is thought is part of the answer.
        new_id: index of a call -> its id.
    """

    #: See ToolParser.
    keeps_special_tokens: ClassVar[bool] = True

    def __init__(
        self,
        tool_names: Collection[str] | None = None,
        new_id: NewId = random_id,
        *,
        has_tools: bool = True,
        has_reasoning: bool = True,
    ) -> None:
        super().__init__(self._header)
        self.num_calls = 0
        self._names = None if tool_names is None else frozenset(tool_names)
        self._new_id = new_id
        self._has_tools, self._has_reasoning = has_tools, has_reasoning
        self._put: Callable[[str], None] = self._say
        self._scanner: JsonScanner | None = None
        self._is_object = False
        self._is_fresh = {TextDelta: True, ReasoningDelta: True}
        self._broke: set[type] = set()

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser."""
        return WrittenCalls(_written, trigger=_CALL, is_single=True)

    def finish(self) -> list[Event]:
        """No more text comes. Returns: what was held back."""
        if self._state == self._header:
            if not self._held.lstrip().startswith(_BEGINNINGS[:-1]):
                self._say(self._held)
        elif self._state == self._body:
            self._put(self._held)
            self._end_message()
        self._held = ""
        return self._taken()

    def _header(self, buffer: str, pos: int) -> int:
        """Up to <|message|>, from the beginning of the output or behind the end of a message."""
        end = buffer.find(_MESSAGE, pos)
        if not _may_be_header(buffer[pos : pos + 32]) or (end if end >= 0 else len(buffer)) - pos > _MOST_HEADER:
            self._put, self._state = self._say, self._body
            return pos
        if end < 0:
            self._waits = True
            return pos
        self._begin_message(buffer[pos:end])
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

    def _begin_message(self, header: str) -> None:
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        name = recipient[1].removeprefix(_FUNCTIONS) if recipient else ""
        is_function = recipient is not None and recipient[1].startswith(_FUNCTIONS)
        if self._has_tools and is_function and (self._names is None or name in self._names):
            self._out.append(ToolCallStart(self.num_calls, self._new_id(self.num_calls), name))
            self._scanner, self._put = JsonScanner(), self._argue
        elif self._has_reasoning and ((channel is not None and channel[1] == "analysis") or recipient is not None):
            self._put = self._think
        else:
            self._put = self._say

    def _end_message(self) -> None:
        if self._scanner is not None:
            if self._scanner.num_scanned == 0:  # a function without parameters
                self._argue("{}")
            is_complete = self._scanner.status is Status.DONE and self._is_object
            self._out.append(ToolCallEnd(self.num_calls, is_complete))
            self.num_calls += 1
            self._scanner = None
        self._broke = {kind for kind, is_fresh in self._is_fresh.items() if not is_fresh}
        self._put = self._say

    def _argue(self, text: str) -> None:
        scanner = self._scanner
        assert scanner is not None, "a call was begun"
        is_first = scanner.num_scanned == 0
        start = behind_blanks(text, 0) if is_first else 0
        if start == len(text) or scanner.status is not Status.OPEN:
            return
        if is_first:
            self._is_object = text[start] == "{"
        end = scanner.scan(text, start)
        self._out.append(ToolCallArguments(self.num_calls, text[start:end]))

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
        self._is_fresh[kind] = False
        self._out.append(kind(text))


def _may_be_header(text: str) -> bool:
    """Whether text begins one, as far as it goes."""
    stripped = text.lstrip()
    return stripped.startswith(_BEGINNINGS) or any(begin.startswith(stripped) for begin in _BEGINNINGS)


def _written(tool: Tool) -> Node:
    return tag_node(f"{_CALL}{tool.name} <|constrain|>json<|message|>", schema_node(tool.parameters), "")
