"""Formats that write calls as objects in one JSON list behind a mark: Granite 3, Phi 4 mini, Jamba, Hunyuan, …

    <|tool_call|>[{"name": "f", "arguments": {…}}, …]                   Granite 3
    <tool_calls>[{"name": "f", "arguments": {…}}, …]</tool_calls>       Jamba, Hunyuan A13B; MiniMax M1 without a list

Sources: the chat templates the models are published with.
"""

from __future__ import annotations

from typing import Any, ClassVar

from albireo.parsers.tool_parser import ToolParser, past_kept_blanks
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


class JsonListParser(ToolParser):
    """See ToolParser. Objects without a list are calls, too.

    Attributes:
        end: what ends all calls; may be missing.
        name_key, arguments_key: as the model writes them; all that others write are read. id_key: of a call's number,
            that goes before them.
    """

    end: ClassVar[str] = ""
    name_key: ClassVar[str] = "name"
    arguments_key: ClassVar[str] = "arguments"
    id_key: ClassVar[str] = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_list = self._is_closed = False

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            rest = f'"{cls.name_key}": "{tool.name}", "{cls.arguments_key}": '
            arguments = schema_node(tool.parameters)
            if not cls.id_key:
                return tag_node("{" + rest, arguments, "}")
            number = [regex_node("[0-9]{1,3}"), text_node(f'", {rest}'), arguments]
            return tag_node(f'{{"{cls.id_key}": "', sequence(number), "}")

        tag = cls.tags[0]
        begin = tag if tag.endswith("[") else f"{tag}["
        return WrittenCalls(call, separator=", ", begin=begin, end=f"]{cls.end}", trigger=tag)

    def _behind_tag(self, buffer: str, pos: int) -> int:
        self._is_list, self._is_closed = self._tag.endswith("["), False
        if not self._is_list:
            pos = self._skip_blanks(buffer, pos)
            if pos == len(buffer):
                return pos
            self._is_list = buffer[pos] == "["
            if self._is_list:
                self._raw.append("[")
                pos += 1
        self._state = self._before_object
        return pos

    @past_kept_blanks
    def _behind_call(self, buffer: str, pos: int) -> int:
        """Another one, or the end of all."""
        if self._is_list and not self._is_closed:
            self._is_closed = buffer[pos] == "]"
            if buffer[pos] == ",":
                self._raw = [","]
                self._state = self._before_object
            elif not self._is_closed:
                self._end_call()
                return pos
            return pos + 1
        if not self._is_list and buffer[pos] == "{":
            self._raw = []
            self._begin_object()
            return pos
        is_ended = self._expect(self.end, buffer, pos)
        if is_ended is None:
            return pos
        self._end_call()
        return pos + len(self.end) if is_ended else pos


class GraniteParser(JsonListParser):
    """Granite 3."""

    tags = ("<|tool_call|>",)


class Phi4MiniParser(JsonListParser):
    """Phi 4 mini, which writes either of two marks."""

    tags = ("<|tool_call|>", "functools[")
    end = "<|/tool_call|>"


class JambaParser(JsonListParser):
    """Jamba, Hunyuan A13B, Apriel, MiniMax M1."""

    tags = ("<tool_calls>",)
    needs_line = True
    end = "</tool_calls>"


class NemotronParser(JsonListParser):
    """Nemotron H, Nano 2, Super 1.5."""

    tags = ("<TOOLCALL>",)
    needs_line = True
    end = "</TOOLCALL>"


class CohereCommandParser(JsonListParser):
    """Command R7B, Command A."""

    tags = ("<|START_ACTION|>",)
    end = "<|END_ACTION|>"
    left_out = ("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>")
    name_key, arguments_key, id_key = "tool_name", "parameters", "tool_call_id"


class InternLmParser(JsonListParser):
    """InternLM 2.5 and 3: an object, without a list."""

    tags = ("<|action_start|><|plugin|>",)
    end = "<|action_end|>"
    arguments_key = "parameters"

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            begin = f'{cls.tags[0]}\n{{"name": "{tool.name}", "parameters": '
            return tag_node(begin, schema_node(tool.parameters), "}" + cls.end)

        return WrittenCalls(call, trigger=cls.tags[0])


class GigaChat3Parser(JsonListParser):
    """GigaChat 3: an object a call, without a list. Before 3.1 a call is a message of its own, behind the end of
    another, which may be empty."""

    tags = ("<|function_call|>", "<|message_sep|>\n\nfunction call<|role_sep|>\n", "function call<|role_sep|>\n")

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            return tag_node(f'{tag}{{"name": "{tool.name}", "arguments": ', schema_node(tool.parameters), "}")

        tag = cls.tags[0] if cls.tags[0] in template else cls.tags[1]
        return WrittenCalls(call, trigger=tag, is_single=True)


class LongCatParser(JsonListParser):
    """LongCat Flash: an object a call between marks."""

    tags = ("<longcat_tool_call>",)
    end = "</longcat_tool_call>"

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        def call(tool: Tool) -> Node:
            begin = f'{cls.tags[0]}\n{{"name": "{tool.name}", "arguments": '
            return tag_node(begin, schema_node(tool.parameters), f"}}\n{cls.end}")

        return WrittenCalls(call, separator="\n", trigger=cls.tags[0])
