"""How a format writes tool calls, as nodes of a structural tag: what tool_form.py makes forms of.

Each format says it of itself (ToolParser.written). Nodes are those that structured/ reads. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from albireo.errors import UnsupportedFeature

Node = dict[str, Any]

#: Schemas within each other that are written out, and in all: what two refer to is written twice.
_MAX_DEPTH, _MOST_SCHEMAS = 8, 4096

ANY_TEXT: Node = {"type": "any_text"}
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that may be called. is_strict: its arguments follow the schema also when nobody requires a call."""

    name: str
    parameters: Mapping[str, Any]
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class WrittenCalls:
    """Fields:
    call: a tool -> the tag that is a call of it.
    separator: text between two calls.
    begin, end: texts round all calls; empty where calls stand by themselves. opening: what comes behind begin.
    trigger: what tells calls from text, and each call, or all of them together, begins with; empty: nothing does.
    is_single: a call ends the output.
    before: what may end an answer in front of calls.
    """

    call: Callable[[Tool], Node]
    separator: str = ""
    begin: str = ""
    end: str = ""
    opening: Node | None = None
    trigger: str = ""
    is_single: bool = False
    before: str = ""

    def calls(self, tools: Sequence[Tool], *, is_one: bool) -> Node:
        """One call or several, and nothing else."""
        inner = self._inner(tools, is_one)
        if not self.begin:
            return inner
        before = [optional(text_node(self.before))] if self.before else []
        return sequence([*before, text_node(self.begin), inner, *([text_node(self.end)] if self.end else [])])

    def amid_text(self, tools: Sequence[Tool], *, is_one: bool) -> Node | None:
        """Free text, in which a call, once begun, is one of these; None where nothing tells a call from text."""
        if not self.trigger:
            return None
        tags = [self.call(tool) for tool in tools]
        if self.begin:
            tags = [tag_node(self.begin, self._inner(tools, is_one), self.end)]
        return {"type": "triggered_tags", "triggers": [self.trigger], "tags": tags, "stop_after_first": is_one}

    def _inner(self, tools: Sequence[Tool], is_one: bool) -> Node:
        node: Node = {
            "type": "tags_with_separator",
            "tags": [self.call(tool) for tool in tools],
            "separator": self.separator,
            "at_least_one": True,
            "stop_after_first": is_one or self.is_single,
        }
        return node if self.opening is None else sequence([self.opening, node])


class WrittenOut:
    """How much of a tool's schema is written out, where a format has no node for all of it."""

    def __init__(self, tool: Tool) -> None:
        self._tool, self._num_schemas = tool, 0

    def enter(self, depth: int) -> None:
        """A schema is written next. Raises: UnsupportedFeature for one too many, or too deep in others."""
        self._num_schemas += 1
        if depth > _MAX_DEPTH or self._num_schemas > _MOST_SCHEMAS:
            many = f"lie more than {_MAX_DEPTH} deep in each other, or in themselves"
            if depth <= _MAX_DEPTH:
                many = f"have more than {_MOST_SCHEMAS:,} values, each reference written out"
            raise UnsupportedFeature(
                f"tools: arguments of {self._tool.name} {many}, which this model's format cannot be held to; leave "
                "tool_choice and strict out"
            )


def text_node(text: str) -> Node:
    """This text."""
    return {"type": "const_string", "value": text}


def regex_node(pattern: str) -> Node:
    """What a regular expression matches."""
    return {"type": "regex", "pattern": pattern}


def schema_node(schema: Mapping[str, Any]) -> Node:
    """JSON that fits a schema."""
    return {"type": "json_schema", "json_schema": dict(schema)}


def tag_node(begin: str, content: Node, end: str) -> Node:
    """A node between two texts. Free text goes on to the first end."""
    if content["type"] == "tag" and not end:
        return {**content, "begin": begin + content["begin"]}
    return {"type": "tag", "begin": begin, "content": content, "end": end}


def sequence(nodes: Iterable[Node]) -> Node:
    """One after another."""
    return {"type": "sequence", "elements": list(nodes)}


def either(nodes: Iterable[Node]) -> Node:
    """One of these."""
    found = list(nodes)
    return found[0] if len(found) == 1 else {"type": "or", "elements": found}


def repeated(nodes: Sequence[Node], separator: str = "") -> Node:
    """Any number of these, in any order."""
    tags = [node if node["type"] == "tag" else tag_node("", node, "") for node in nodes]
    return {"type": "tags_with_separator", "tags": tags, "separator": separator, "at_least_one": False}


def optional(*nodes: Node) -> Node:
    """One of these, or nothing."""
    return {**repeated(nodes), "stop_after_first": True}


def members_of(schema: Mapping[str, Any]) -> dict[str, bool] | None:
    """An object's members, in their order, and whether each has to be there; None where its schema names none and
    allows any."""
    known, required = schema.get("properties"), schema.get("required")
    if not isinstance(known, Mapping) or (not known and schema.get("additionalProperties") is not False):
        return None
    return {name: isinstance(required, list) and name in required for name in known}


def in_order(schema: Mapping[str, Any], written: Callable[[str], Node], unnamed: Node) -> Node:
    """An object's members, in their order. Args: written: how each is. unnamed: how any is, where the schema names none
    and allows any."""
    members = members_of(schema)
    if members is None:
        return repeated([unnamed])
    nodes = [written(name) if is_needed else optional(written(name)) for name, is_needed in members.items()]
    return sequence(nodes) if nodes else text_node("")


def property_schema(tool: Tool, name: str) -> dict[str, Any]:
    """The schema of one of a tool's arguments, with what it may refer to."""
    shared = {key: tool.parameters[key] for key in ("$defs", "definitions") if key in tool.parameters}
    known = tool.parameters["properties"][name]
    # true, which allows anything, and what is no schema at all
    return {**(known if isinstance(known, Mapping) else {}), **shared}
