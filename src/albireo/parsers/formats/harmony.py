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

from albireo.parsers.addressed_messages import MESSAGE, START, AddressedMessages
from albireo.parsers.call_reader import NewId
from albireo.parsers.events import ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.json_scanner import JsonScanner, Status, behind_blanks
from albireo.parsers.tool_parser import random_id
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, schema_node, tag_node

_CHANNEL = re.compile(r"<\|channel\|>\s*([a-z]+)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_FUNCTIONS = "functions."
#: What a call begins with; its function's name follows.
_CALL = "<|channel|>commentary to=functions."


class HarmonyParser(AddressedMessages):
    """A call stands in a message to a function alone.

    Invariants: 1. the events, joined, do not depend on how the text was cut; 2. no marker is in them.

    Args:
        tool_names: of the request; what is for another function, or for another tool, is thought. None: any.
        has_tools: else the arguments of a call are part of the answer.
        has_reasoning: else what is thought is part of the answer.
        new_id: index of a call -> its id.
    """

    ends: ClassVar[tuple[str, ...]] = ("<|end|>", "<|return|>", "<|call|>", START)
    beginnings: ClassVar[tuple[str, ...]] = (START, "<|channel|>", "<|constrain|>", MESSAGE, "to=")
    unsaid: ClassVar[tuple[str, ...]] = beginnings[:-1]

    def __init__(
        self,
        tool_names: Collection[str] | None = None,
        new_id: NewId = random_id,
        *,
        has_tools: bool = True,
        has_reasoning: bool = True,
    ) -> None:
        super().__init__()
        self._names = None if tool_names is None else frozenset(tool_names)
        self._new_id = new_id
        self._has_tools, self._has_reasoning = has_tools, has_reasoning
        self._scanner: JsonScanner | None = None
        self._is_object = False

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser."""
        return WrittenCalls(_written, trigger=_CALL, is_single=True)

    def _reader_of(self, header: str) -> Callable[[str], None]:
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        name = recipient[1].removeprefix(_FUNCTIONS) if recipient else ""
        is_function = recipient is not None and recipient[1].startswith(_FUNCTIONS)
        if self._has_tools and is_function and (self._names is None or name in self._names):
            self._out.append(ToolCallStart(self.num_calls, self._new_id(self.num_calls), name))
            self._scanner = JsonScanner()
            return self._argue
        is_thought = (channel is not None and channel[1] == "analysis") or recipient is not None
        return self._think if self._has_reasoning and is_thought else self._say

    def _end_call(self) -> None:
        if self._scanner is not None:
            if self._scanner.num_scanned == 0:  # a function without parameters
                self._argue("{}")
            is_complete = self._scanner.status is Status.DONE and self._is_object
            self._out.append(ToolCallEnd(self.num_calls, is_complete))
            self.num_calls += 1
            self._scanner = None

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


def _written(tool: Tool) -> Node:
    return tag_node(f"{_CALL}{tool.name} <|constrain|>json<|message|>", schema_node(tool.parameters), "")
