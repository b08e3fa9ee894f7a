"""The format of Hermes, Qwen 2.5 and Qwen 3: <tool_call>{"name": "f", "arguments": {…}}</tool_call>."""

from __future__ import annotations

from albireo.parsers.tool_parser import ToolParser

_CLOSE = "</tool_call>"


class HermesParser(ToolParser):
    """See ToolParser. A tag without its object is text; a missing end tag is forgiven."""

    tag = "<tool_call>"

    def _behind_call(self, buffer: str, pos: int) -> int:
        pos = self._skip_blanks(buffer, pos)
        if pos == len(buffer):
            return pos
        is_closed = self._expect(_CLOSE, buffer, pos)
        if is_closed is None:
            return pos
        self._end_call()
        return pos + len(_CLOSE) if is_closed else pos
