"""How formats with arguments in brackets write calls: f(city="Oslo", days=3), call:f{city:<|"|>Oslo<|"|>,days:3}.

Used by bracketed_calls.py, which reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from albireo.parsers.argument_values import choices_of, json_kinds, options_of, referred
from albireo.parsers.written_calls import (
    ANY_TEXT,
    Node,
    Tool,
    WrittenCalls,
    WrittenOut,
    either,
    members_of,
    optional,
    property_schema,
    regex_node,
    repeated,
    schema_node,
    sequence,
    tag_node,
    text_node,
)

Schema = Mapping[str, Any]

_KEY = regex_node(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
#: Schemas within each other where one says nothing, so that anything has a form of bounded size.
_MAX_DEPTH_OF_ANY = 3
#: Members of which none has to be there that are written out in their order, which takes their square; more may come in
#: any order, and could come twice, of which the last counts.
_MOST_IN_ORDER = 3


def python_calls(begin: str, end: str, *, separator: str = ", ", trigger: str = "") -> WrittenCalls:
    """Calls as Python has them, with arguments by name. Values are JSON's, which Python's reader takes, too."""

    def call(tool: Tool) -> Node:
        def value(name: str, schema: Schema) -> Node:
            return schema_node(property_schema(tool, name))

        free = repeated([sequence([_KEY, text_node("="), schema_node({})])], ", ")
        return tag_node(f"{tool.name}(", _members(tool.parameters, "=", ", ", value) or free, ")")

    return WrittenCalls(call, separator=separator, begin=begin, end=end, trigger=trigger)


def gemma_calls(begin: str, quote: str, end: str) -> WrittenCalls:
    """Calls as Gemma has them, nested values too. A string holds no quote."""

    def call(tool: Tool) -> Node:
        return tag_node(f"{begin}call:{tool.name}", _GemmaValues(tool, quote).arguments(), end)

    return WrittenCalls(call, trigger=begin)


class _GemmaValues:
    """Values of one tool's arguments."""

    def __init__(self, tool: Tool, quote: str) -> None:
        self._tool, self._quote = tool, quote
        self._written = WrittenOut(tool)
        self._makers = (("string", self._text), ("object", self._object), ("array", self._array))

    def arguments(self) -> Node:
        return self._object(self._tool.parameters, 0)

    def node(self, schema: Any, depth: int) -> Node:
        self._written.enter(depth)
        if not isinstance(schema, Mapping):
            schema = {}  # true allows anything
        if isinstance(schema.get("$ref"), str):
            return self.node(referred(schema["$ref"], self._tool.parameters) or {}, depth + 1)
        choices = choices_of(schema)
        if choices:
            return either(self._constant(each) for each in choices)
        if found := options_of(schema):
            return either(self.node(each, depth + 1) for each in found)
        kinds = json_kinds(schema, self._tool.parameters)
        options = [make(schema, depth) for kind, make in self._makers if kind in kinds]
        scalars = sorted(kinds & {"boolean", "null", "number"})
        if scalars:
            options.append(schema_node({**schema, "type": scalars} if len(scalars) < len(kinds) else schema))
        return either(options)

    def _text(self, schema: Schema, depth: int) -> Node:
        return tag_node(self._quote, ANY_TEXT, self._quote)

    def _array(self, schema: Schema, depth: int) -> Node:
        items = schema.get("items")
        inner = self._any(depth) if not isinstance(items, Mapping) else self.node(items, depth + 1)
        return tag_node("[", repeated([inner], ","), "]")

    def _any(self, depth: int) -> Node:
        """What a schema says nothing of: anything, of which what lies deeper is no list and no object."""
        kinds = {} if depth < _MAX_DEPTH_OF_ANY else {"type": ["string", "number", "boolean", "null"]}
        return self.node(kinds, depth + 1)

    def _object(self, schema: Schema, depth: int) -> Node:
        inner = _members(schema, ":", ",", lambda name, each: self.node(each, depth + 1))
        if inner is None:
            inner = repeated([sequence([_KEY, text_node(":"), self._any(depth)])], ",")
        return tag_node("{", inner, "}")

    def _constant(self, value: Any) -> Node:
        if isinstance(value, str):
            return text_node(f"{self._quote}{value}{self._quote}")
        return schema_node({"const": value})


def _members(schema: Schema, assign: str, separator: str, value: Callable[[str, Schema], Node]) -> Node | None:
    """The members of an object, required ones first; None where its schema names none and allows any."""
    members = members_of(schema)
    if members is None:
        return None
    needed = [name for name, is_needed in members.items() if is_needed]
    others = [name for name in members if name not in needed]

    def member(before: str, name: str) -> Node:
        return tag_node(f"{before}{name}{assign}", value(name, schema["properties"][name]), "")

    if needed:
        head = [member(separator if i else "", name) for i, name in enumerate(needed)]
        return sequence([*head, *(optional(member(separator, name)) for name in others)])
    if not others:
        return text_node("")
    if len(others) > _MOST_IN_ORDER:
        return repeated([member("", name) for name in others], separator)
    return optional(
        *(
            sequence([member("", name), *(optional(member(separator, each)) for each in others[idx + 1 :])])
            for idx, name in enumerate(others)
        )
    )
