"""The format of Llama 3.1 to 3.3: the whole output is {"name": "f", "parameters": {…}}, or several with semicolons
between them; a <|python_tag|> may come before. What is in front of a tag is text.
"""

from __future__ import annotations

from typing import Any

from albireo.parsers.tool_parser import ToolParser, past_kept_blanks
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, schema_node, tag_node

_TAG = "<|python_tag|>"


class Llama3JsonParser(ToolParser):
    """See ToolParser. Without a tag a call stands at the beginning and has parameters: an answer may be JSON too."""

    tags = (_TAG,)
    needs_mark = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state = self._beginning

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser. An answer may be JSON too, so nothing tells a call from it."""
        return WrittenCalls(_written, separator="; ")

    @past_kept_blanks
    def _beginning(self, buffer: str, pos: int) -> int:
        if buffer[pos] == "{":
            self._begin_object(is_strict=True)
        else:
            self._give_back()
        return pos

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        if buffer[pos] == ";":
            self._raw = [";"]
            self._state = self._next
            return pos + 1
        self._end_call()
        return pos

    @past_kept_blanks
    def _next(self, buffer: str, pos: int) -> int:
        has_tag = self._expect(_TAG, buffer, pos)
        if has_tag is None:
            return pos
        if has_tag:
            self._raw.append(_TAG)
            self._state = self._behind_tag
            return pos + len(_TAG)
        if buffer[pos] == "{":
            self._begin_object(is_strict=True)
        else:
            self._give_back()
        return pos


def _written(tool: Tool) -> Node:
    return tag_node(f'{{"name": "{tool.name}", "parameters": ', schema_node(tool.parameters), "}")
