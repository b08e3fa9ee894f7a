"""The format of MiniMax M3: elements that lie in each other, each of whose marks begins with a name of the model's own.

    ]<]minimax[>[<tool_call>
    ]<]minimax[>[<invoke name="f">]<]minimax[>[<city>Oslo]<]minimax[>[</city>]<]minimax[>[</invoke>
    ]<]minimax[>[</tool_call>

What lies in a list is an element `item`. Nothing says what a value is but its tool's schema, and how it looks. Source:
the chat template that the model is published with.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from albireo.parsers.argument_values import as_json, choices_of, json_kinds, options_of, referred
from albireo.parsers.formats.keyed_marks import KeyedMarks
from albireo.parsers.formats.keyed_values import KeyedParser
from albireo.parsers.held_end import could_begin
from albireo.parsers.json_scanner import MAX_DEPTH, behind_blanks
from albireo.parsers.written_calls import (
    ANY_TEXT,
    Node,
    Tool,
    WrittenCalls,
    WrittenOut,
    either,
    in_order,
    regex_node,
    repeated,
    schema_node,
    sequence,
    tag_node,
    text_node,
)

Schema = Mapping[str, Any]

_MARK = "]<]minimax[>["
_BEGIN, _END = f"{_MARK}<", f"{_MARK}</"
_ITEM = "item"
#: Characters of an element's name; more are none.
_MAX_NAME = 256
#: Schemas within each other, and in all, that are looked at for one that says what is in a value.
_MAX_CHOSEN, _MOST_CHOSEN = 8, 64


@dataclass(slots=True)
class _Element:
    name: str
    texts: list[str] = field(default_factory=list)
    children: list[_Element] = field(default_factory=list)


class MiniMaxM3Parser(KeyedParser):
    """See ToolParser. Strings go out while they come, all else when the argument is over."""

    marks = KeyedMarks(
        section=f"{_BEGIN}tool_call>",
        opening=(f'{_BEGIN}invoke name="',),
        name_end='">',
        key=_BEGIN,
        key_end=">",
        value_end=_END,
        closing=(f"{_END}invoke>",),
        section_end=f"{_END}tool_call>",
    )
    # Where it does not think it begins with the end of thoughts.
    left_out = ("</mm:think>",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._elements: list[_Element] = []

    @classmethod
    def written(cls, template: str) -> WrittenCalls:
        marks = cls.marks

        def call(tool: Tool) -> Node:
            return tag_node(
                f"{marks.opening[0]}{tool.name}{marks.name_end}", _Values(tool).arguments(), f"{marks.closing[0]}\n"
            )

        return WrittenCalls(call, begin=f"{marks.section}\n", end=marks.section_end, trigger=marks.section)

    def _argument_marks(self) -> tuple[str, ...]:
        return (*self.marks.closing, self.marks.key)

    def _between(self, buffer: str, pos: int) -> int:
        pos = behind_blanks(buffer, pos)
        if pos < len(buffer) and len(buffer) - pos < len(end := self.marks.closing[0]) and end.startswith(buffer[pos:]):
            self._waits = True  # an argument begins as the end of the call does
            return pos
        return super()._between(buffer, pos)

    def _begin_value(self, is_string: bool | None) -> None:
        super()._begin_value(is_string)
        self._value_end = f"{_END}{self._word}>"
        if not self._streams:
            self._elements = [_Element(self._word)]
            self._state = self._nested

    def _nested(self, buffer: str, pos: int) -> int:
        """The text of an element, up to the next mark, and that."""
        start = buffer.find(_MARK, pos)
        if start < 0:
            self._waits = True
            end = len(buffer) - could_begin(_MARK, buffer, pos)
            self._elements[-1].texts.append(buffer[pos:end])
            return end
        self._elements[-1].texts.append(buffer[pos:start])
        begin = start + len(_BEGIN)
        end = buffer.find(">", begin, begin + _MAX_NAME)
        if end < 0 and len(buffer) - begin < _MAX_NAME:
            self._waits = True
            return start
        name = buffer[begin:end]
        if end < 0 or buffer[begin - 1] != "<" or not name or len(self._elements) > MAX_DEPTH:
            self._fail()
            return start + len(_MARK)
        if name[0] != "/":
            self._elements.append(_Element(name))
            self._elements[-2].children.append(self._elements[-1])
        else:
            over = self._elements.pop()
            if not self._elements:
                known = self._schema.get("properties")
                schema = known.get(over.name) if isinstance(known, Mapping) else None
                self._out.append(self._more(_json_of(over, schema, self._schema)))
                self._state = self._between
        return end + 1


def _json_of(element: _Element, schema: Any, root: Schema) -> str:
    """The JSON of an element. Args: root: what a schema's references refer to."""
    schema = _resolved(schema, root)
    kinds = json_kinds(schema, root)
    text = "".join(element.texts)
    if not element.children:
        if "string" not in kinds and not text.strip():  # a template writes nothing of what is empty
            return "[]" if "array" in kinds else "{}" if "object" in kinds else as_json(text, kinds)
        return as_json(text, kinds)
    is_list = "array" in kinds and ("object" not in kinds or all(child.name == _ITEM for child in element.children))
    if is_list:
        return f"[{', '.join(_json_of(child, schema.get('items'), root) for child in element.children)}]"
    known = schema.get("properties")
    members: dict[str, list[str]] = {}
    for child in element.children:
        inner = known.get(child.name) if isinstance(known, Mapping) else schema.get("additionalProperties")
        members.setdefault(child.name, []).append(_json_of(child, inner, root))
    parts = [
        f"{json.dumps(name, ensure_ascii=False)}: {each[0] if len(each) == 1 else '[' + ', '.join(each) + ']'}"
        for name, each in members.items()
    ]
    return f"{{{', '.join(parts)}}}"


def _resolved(schema: Any, root: Schema) -> Schema:
    """A schema that says what is in a list or an object, of those that it refers to or chooses from."""
    return _chosen(schema, root, 0, iter(range(_MOST_CHOSEN)))


def _chosen(schema: Any, root: Schema, depth: int, left: Iterator[int]) -> Schema:
    if not isinstance(schema, Mapping) or depth > _MAX_CHOSEN or next(left, None) is None:
        return {}
    if isinstance(schema.get("$ref"), str):
        return _chosen(referred(schema["$ref"], root), root, depth + 1, left)
    for option in options_of(schema):
        found = _chosen(option, root, depth + 1, left)
        if "properties" in found or "items" in found:
            return {**found, "type": sorted(json_kinds(schema, root))}
    return schema


class _Values:
    """How the arguments of one tool are written."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self._written = WrittenOut(tool)

    def arguments(self) -> Node:
        return self._members(self._tool.parameters, 0)

    def _element(self, name: str, schema: Any, depth: int) -> Node:
        """An element, whatever it may hold."""
        self._written.enter(depth)
        if not isinstance(schema, Mapping):
            schema = {}
        root = self._tool.parameters
        if isinstance(schema.get("$ref"), str):
            return self._element(name, referred(schema["$ref"], root) or {}, depth + 1)
        begin, end = f"{_BEGIN}{name}>", f"{_END}{name}>"
        choices = choices_of(schema)
        if choices:
            texts = (each if isinstance(each, str) else json.dumps(each) for each in choices)
            return tag_node(begin, either(text_node(each) for each in texts), end)
        options = options_of(schema)
        if options:
            return either(self._element(name, each, depth + 1) for each in options)
        kinds = json_kinds(schema, root)
        if "string" in kinds:
            return tag_node(begin, ANY_TEXT, end)
        nodes = []
        if "object" in kinds:
            nodes.append(tag_node(begin, self._members(schema, depth), end))
        if "array" in kinds:
            items = schema.get("items")
            item = self._element(_ITEM, items if isinstance(items, Mapping) else {}, depth + 1)
            nodes.append(tag_node(begin, repeated([item]), end))
        scalars = sorted(kinds & {"boolean", "null", "number"})
        if scalars:
            shape = {**schema, "type": scalars} if len(scalars) < len(kinds) else schema
            nodes.append(tag_node(begin, schema_node(shape), end))
        return either(nodes)

    def _members(self, schema: Schema, depth: int) -> Node:
        """Elements of an object, in the order of its schema; any, where that names none."""
        name = regex_node(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
        unnamed = sequence([name, text_node(">"), tag_node("", ANY_TEXT, _END), name, text_node(">")])
        member = partial(self._member, schema, depth + 1)
        return in_order(schema, member, tag_node(_BEGIN, unnamed, ""))

    def _member(self, schema: Schema, depth: int, name: str) -> Node:
        return self._element(name, schema["properties"][name], depth)
