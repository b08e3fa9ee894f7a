"""Reading the parts of a structural tag, for every backend. Does not know grammars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import InvalidParams

Node = Mapping[str, Any]


def structure_of(tag: Node) -> Node:
    """The tree of a tag; one in the older form {structures: [{begin, schema, end}], triggers} becomes triggered_tags.

    Raises: InvalidParams.
    """
    if "format" in tag:
        node: Node = field(tag, "format", Mapping)
        return node
    structures = field(tag, "structures", list)
    tags = [
        {
            "begin": field(each, "begin", str),
            "content": {"type": "json_schema", "json_schema": field(each, "schema", Mapping)},
            "end": field(each, "end", str),
        }
        for each in structures
    ]
    return {"type": "triggered_tags", "triggers": field(tag, "triggers", list), "tags": tags}


def field(node: Any, name: str, kind: type) -> Any:
    """A field of this type. Raises: InvalidParams."""
    value = node.get(name) if isinstance(node, Mapping) else None
    if not isinstance(value, kind):
        wanted = "a text" if kind is str else "a list" if kind is list else "an object"
        raise InvalidParams(f"structural_tag: {name!r} must be {wanted}, got {value!r:.60}")
    return value


def objects(node: Node, name: str) -> list[Node]:
    """A field that is a list of objects, and not empty. Raises: InvalidParams."""
    values: list[Node] = field(node, name, list)
    if not values or not all(isinstance(each, Mapping) for each in values):
        raise InvalidParams(f"structural_tag: {name!r} must be a list of objects that is not empty, got {values!r:.60}")
    return values
