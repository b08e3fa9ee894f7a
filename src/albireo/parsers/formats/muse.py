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

from albireo.parsers.addressed_messages import MESSAGE, START, AddressedMessages
from albireo.parsers.call_reader import NewId
from albireo.parsers.formats.keyed_marks import invoked, written_calls
from albireo.parsers.formats.keyed_values import KeyedParser
from albireo.parsers.tool_parser import random_id
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, tag_node

_HEADER = re.compile(r"\s*(?:<\|start\|>\s*assistant)?\s*(?:to=(?P<whom>[^\s<]+))?\s*")


class _Calls(KeyedParser):
    """What a message to a tool holds."""

    marks = invoked("atem:", "atem:function_calls")


class MuseParser(AddressedMessages):
    """A call stands in a message to a tool alone.

    Invariants: 1. the events, joined, do not depend on how the text was cut; 2. nothing that ends a message is in them.

    Args:
        tool_names, new_id, schemas: see ToolParser.
        has_tools: else calls are part of the answer. has_reasoning: else what is thought is.
    """

    ends: ClassVar[tuple[str, ...]] = ("<|eom|>", "<|eot|>", START)
    beginnings: ClassVar[tuple[str, ...]] = (START, "to=", MESSAGE)
    unsaid: ClassVar[tuple[str, ...]] = beginnings

    def __init__(
        self,
        tool_names: Collection[str] | None = None,
        new_id: NewId = random_id,
        schemas: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        has_tools: bool = True,
        has_reasoning: bool = True,
    ) -> None:
        super().__init__()
        self._of_calls = (tool_names, new_id, schemas)
        self._has_tools, self._has_reasoning = has_tools, has_reasoning
        self._calls: _Calls | None = None

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser. Words with an equals sign may stand in any answer, so nothing tells a call from it."""
        return WrittenCalls(_written, separator=f"<|eom|>{START}assistant")

    def _reader_of(self, header: str) -> Callable[[str], None] | None:
        match = _HEADER.fullmatch(header)
        if match is None:
            return None
        whom = match["whom"]
        if whom == "self" and self._has_reasoning:
            return self._think
        if whom in (None, "self", "user") or not self._has_tools:
            return self._say
        self._calls = _Calls(*self._of_calls)
        self._calls.num_calls = self.num_calls
        return self._call

    def _end_call(self) -> None:
        if self._calls is not None:
            self._out += self._calls.finish()
            self.num_calls = self._calls.num_calls
            self._calls = None

    def _call(self, text: str) -> None:
        assert self._calls is not None, "begun"
        before = self._calls.num_scanned
        self._out += self._calls.push(text)
        self.num_scanned += self._calls.num_scanned - before


def _written(tool: Tool) -> Node:
    marks = _Calls.marks
    call = written_calls(marks, has_lines=True).call(tool)
    return tag_node(f" to={tool.name}{MESSAGE}{marks.section}\n", call, marks.section_end)
