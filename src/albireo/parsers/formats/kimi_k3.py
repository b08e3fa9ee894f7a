"""The format of Kimi K3: channels between marks, in which each argument says what kind of value it is.

    <|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|>
    <|open|>argument key="city" type="string"<|sep|>Oslo<|close|>argument<|sep|>
    <|close|>call<|sep|><|close|>tools<|sep|>

without the line ends. An answer in words stands in a channel of its own, which is closed in front of calls. Source: the
chat template that the model is published with.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from albireo.parsers.argument_values import property_kinds
from albireo.parsers.formats.keyed_marks import KeyedMarks, text_value
from albireo.parsers.formats.keyed_values import KeyedParser
from albireo.parsers.written_calls import (
    ANY_TEXT,
    Node,
    Tool,
    WrittenCalls,
    either,
    in_order,
    property_schema,
    regex_node,
    schema_node,
    sequence,
    tag_node,
    text_node,
)

_OPEN, _CLOSE, _SEP = "<|open|>", "<|close|>", "<|sep|>"
_ANSWER_END = f"{_CLOSE}response{_SEP}"
#: Kinds of JSON, as arguments say them.
_KINDS = ("string", "number", "boolean", "null", "object", "array")
#: What stands between a function's name and its arguments: the number of the call.
_NUMBER = re.compile(r' index="\d{1,6}"')


class KimiK3Parser(KeyedParser):
    """See ToolParser. Whether a value is a string is said by the model; what else it is, by how it looks."""

    marks = KeyedMarks(
        section=f"{_OPEN}tools{_SEP}",
        opening=(f'{_OPEN}call tool="',),
        name_end='"',
        key=f'{_OPEN}argument key="',
        key_end='" type="',
        value=tuple((f'{kind}"{_SEP}', kind == "string") for kind in _KINDS),
        value_end=f"{_CLOSE}argument{_SEP}",
        closing=(f"{_CLOSE}call{_SEP}",),
        section_end=f"{_CLOSE}tools{_SEP}",
    )
    left_out = (f"{_OPEN}response{_SEP}", _ANSWER_END, f"{_CLOSE}message{_SEP}")

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        # An answer is closed by marks of its own, calls or not: nothing amid text tells that calls come.
        return WrittenCalls(_call, begin=cls.marks.section, end=cls.marks.section_end, before=_ANSWER_END)

    def _behind_name(self, buffer: str, pos: int) -> int:
        end = buffer.find(_SEP, pos)
        if end < 0 and len(buffer) - pos <= 32:
            self._waits = True
            return pos
        if _NUMBER.fullmatch(buffer, pos, max(end, pos)) is None:
            self._fail()
            return pos
        self._state = self._between
        return end + len(_SEP)


def _call(tool: Tool) -> Node:
    head = [regex_node(r"[1-9][0-9]{0,2}"), text_node(f'"{_SEP}')]
    begin = f'{KimiK3Parser.marks.opening[0]}{tool.name}" index="'
    return tag_node(begin, sequence([*head, _arguments(tool)]), KimiK3Parser.marks.closing[0])


def _arguments(tool: Tool) -> Node:
    """All arguments a schema names, in its order; any, if it names none."""
    key = regex_node(r"[A-Za-z0-9_.$-]{1,64}")
    unnamed = either(sequence([key, _value(kind, _any_of(kind))]) for kind in _KINDS)
    return in_order(tool.parameters, partial(_argument, tool), tag_node(KimiK3Parser.marks.key, unnamed, ""))


def _argument(tool: Tool, name: str) -> Node:
    schema = property_schema(tool, name)
    kinds = property_kinds(tool.parameters, name)
    nodes = []
    for kind in _KINDS:
        if kind not in kinds:
            continue
        if kind == "string":
            nodes.append(_text(tool, name, is_only=len(kinds) == 1))
        else:
            nodes.append(
                _value(kind, schema_node(schema if len(kinds) == 1 else {**schema, "type": _types(schema, kind)}))
            )
    return tag_node(f"{KimiK3Parser.marks.key}{name}", either(nodes), "")


def _text(tool: Tool, name: str, *, is_only: bool) -> Node:
    """A string with its end. Args: is_only: it can be nothing else, so that its schema speaks of strings."""
    end = KimiK3Parser.marks.value_end
    begin = f'{KimiK3Parser.marks.key_end}string"{_SEP}'
    return text_value(tool, name, begin, end) if is_only else tag_node(begin, ANY_TEXT, end)


def _value(kind: str, content: Node) -> Node:
    return tag_node(f'{KimiK3Parser.marks.key_end}{kind}"{_SEP}', content, KimiK3Parser.marks.value_end)


def _any_of(kind: str) -> Node:
    return ANY_TEXT if kind == "string" else schema_node({"type": kind})


def _types(schema: Mapping[str, object], kind: str) -> str:
    """The kind, as the schema calls it."""
    return "integer" if kind == "number" and "integer" in str(schema.get("type")) else kind
