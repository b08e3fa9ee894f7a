"""The format of Llama 3.1 to 3.3: the whole output is {"name": "f", "parameters": {…}}, or several with semicolons
between them; a <|python_tag|> may come before. What is in front of a tag is text.
"""

from __future__ import annotations

from collections.abc import Collection

from albireo.parsers.call_reader import NewId
from albireo.parsers.tool_parser import ToolParser, random_id


class Llama3JsonParser(ToolParser):
    """See ToolParser. Without a tag a call stands at the beginning and has parameters: an answer may be JSON too."""

    tag = "<|python_tag|>"

    def __init__(self, tool_names: Collection[str] | None = None, new_id: NewId = random_id) -> None:
        super().__init__(tool_names, new_id)
        self._state = self._beginning

    def _beginning(self, buffer: str, pos: int) -> int:
        pos = self._skip_blanks(buffer, pos)
        if pos < len(buffer):
            if buffer[pos] == "{":
                self._begin_object(is_strict=True)
            else:
                self._give_back()
        return pos

    def _behind_call(self, buffer: str, pos: int) -> int:
        pos = self._skip_blanks(buffer, pos)
        if pos == len(buffer):
            return pos
        if buffer[pos] == ";":
            self._raw = [";"]
            self._state = self._next
            return pos + 1
        self._end_call()
        return pos

    def _next(self, buffer: str, pos: int) -> int:
        pos = self._skip_blanks(buffer, pos)
        if pos == len(buffer):
            return pos
        has_tag = self._expect(self.tag, buffer, pos)
        if has_tag is None:
            return pos
        if has_tag:
            self._raw.append(self.tag)
            self._state = self._behind_tag
            return pos + len(self.tag)
        if buffer[pos] == "{":
            self._begin_object(is_strict=True)
        else:
            self._give_back()
        return pos
