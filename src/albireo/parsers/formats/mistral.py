"""The formats of Mistral: [TOOL_CALLS][{"name": "f", "arguments": {…}}, …] up to version 7, and from version 11 on
[TOOL_CALLS]f[ARGS]{…} or [TOOL_CALLS]f[CALL_ID]id[ARGS]{…}, once for each call.
"""

from __future__ import annotations

import re
from typing import Any

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

_TAG, _ARGS, _CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_WORD = re.compile(r"[A-Za-z0-9_.:/-]*")
#: Letters of a name or an id; more are none.
_MAX_WORD = 256


class MistralParser(NamedJsonParser):
    """See ToolParser; reads both formats."""

    tags = (_TAG,)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_array = False
        self._word = ""
        self._name = ""
        self._id = ""

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        """See ToolParser. Templates with [ARGS] write names and arguments, others objects in an array."""
        if _ARGS in template:
            return WrittenCalls(_with_id if _CALL_ID in template else _named, trigger=_TAG)
        # A SentencePiece tokenizer begins the text behind a special token with a space, so models learnt it so.
        opening = regex_node(r" ?\[")
        return WrittenCalls(_object, separator=", ", begin=_TAG, opening=opening, end="]", trigger=_TAG)

    @past_kept_blanks
    def _behind_tag(self, buffer: str, pos: int) -> int:
        self._is_array = buffer[pos] == "["
        if self._is_array:
            self._raw.append("[")
            self._state = self._before_object
            return pos + 1
        if buffer[pos] == "{":
            self._begin_object()
        else:
            self._word = self._name = self._id = ""
            self._state = self._function
        return pos

    # -- objects -------------------------------------------------------------------------------------------------------

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        if self._is_array and buffer[pos] == ",":
            self._raw = [","]
            self._state = self._before_object
            return pos + 1
        is_closed = self._is_array and buffer[pos] == "]"
        self._end_call()
        return pos + 1 if is_closed else pos

    # -- a name and its arguments --------------------------------------------------------------------------------------

    def _function(self, buffer: str, pos: int) -> int:
        """The name, and the id if there is one, up to the arguments."""
        match = _WORD.match(buffer, pos)
        end = match.end() if match else pos
        end = min(end, pos + _MAX_WORD + 1 - len(self._word))
        self._word += buffer[pos:end]
        self._raw.append(buffer[pos:end])
        if len(self._word) > _MAX_WORD:
            self._give_back()
            return end
        if end == len(buffer):
            return end
        return self._behind_word(buffer, end)

    def _behind_word(self, buffer: str, pos: int) -> int:
        """A name ends with a tag or its arguments, an id with the tag of the arguments."""
        for tag in (_ARGS,) if self._name else (_ARGS, _CALL_ID):
            found = self._expect(tag, buffer, pos)
            if found is None:
                return pos
            if found:
                return self._take_word(tag, pos)
        if buffer[pos] == "{" and not self._name and self._take_name():
            self._state = self._before_arguments
        else:
            self._give_back()
        return pos

    def _take_word(self, tag: str, pos: int) -> int:
        self._id = self._word if self._name else ""
        if not self._name and not self._take_name():
            self._give_back()
            return pos
        self._raw.append(tag)
        self._word = ""
        self._state = self._before_arguments if tag == _ARGS else self._function
        return pos + len(tag)

    def _take_name(self) -> bool:
        self._name = self._word
        return self._is_name(self._name)

    @past_kept_blanks
    def _before_arguments(self, buffer: str, pos: int) -> int:
        if buffer[pos] != "{":
            self._give_back()
            return pos
        self._begin_arguments(self._name, self._id)
        return pos


def _object(tool: Tool) -> Node:
    return tag_node(f'{{"name": "{tool.name}", "arguments": ', schema_node(tool.parameters), "}")


def _named(tool: Tool) -> Node:
    return tag_node(f"{_TAG}{tool.name}{_ARGS}", schema_node(tool.parameters), "")


def _with_id(tool: Tool) -> Node:
    arguments = sequence([regex_node("[a-zA-Z0-9]{9}"), text_node(_ARGS), schema_node(tool.parameters)])
    return tag_node(f"{_TAG}{tool.name}{_CALL_ID}", arguments, "")
