"""The format of Hermes, Qwen 2.5 and Qwen 3: <tool_call>{"name": "f", "arguments": {…}}</tool_call>."""

from __future__ import annotations

from albireo.parsers.tool_parser import ToolParser, past_kept_blanks
from albireo.parsers.written_calls import Node, Tool, WrittenCalls, schema_node, tag_node

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class HermesParser(ToolParser):
    """See ToolParser. A tag without its object is text; a missing end tag is forgiven."""

    tags = (_OPEN,)
    needs_line = True
    keeps_special_tokens = False

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        return WrittenCalls(_written, separator="\n", trigger=_OPEN)

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        is_closed = self._expect(_CLOSE, buffer, pos)
        if is_closed is None:
            return pos
        self._end_call()
        return pos + len(_CLOSE) if is_closed else pos


def _written(tool: Tool) -> Node:
    begin = f'{_OPEN}\n{{"name": "{tool.name}", "arguments": '
    return tag_node(begin, schema_node(tool.parameters), "}\n" + _CLOSE)
