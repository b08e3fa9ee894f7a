"""Arguments that models write as text, or in Python's words -> JSON, by what a tool's schema says of them.

Used by formats whose calls are not JSON. Nothing is evaluated: Python's literals are read from its syntax tree.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from typing import Any

from albireo.parsers.json_scanner import MAX_DEPTH, JsonScanner, Status

Schema = Mapping[str, Any]

_ALL = frozenset({"string", "number", "boolean", "null", "array", "object"})
#: Words of Python and of JSON.
_WORDS = {"true": True, "false": False, "null": None, "none": None}
#: References to follow before a schema counts as one that says nothing; and schemas to look at in all, since those that
#: refer to themselves several times would be met without end.
_MAX_REFERENCES, _MOST_SCHEMAS = 16, 256


def json_kinds(schema: Schema, root: Schema) -> frozenset[str]:
    """Which kinds of JSON a schema allows: of string, number, boolean, null, array, object. All, if it says none.

    Args: root: what "#/…" refers to.
    """
    return _kinds(schema, root, 0, iter(range(_MOST_SCHEMAS)))


def _kinds(schema: Schema, root: Schema, depth: int, left: Iterator[int]) -> frozenset[str]:
    if depth > _MAX_REFERENCES or next(left, None) is None or not isinstance(schema, Mapping):
        return _ALL
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return _kinds(referred(reference, root), root, depth + 1, left)
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            return frozenset().union(*(_kinds(each, root, depth + 1, left) for each in schema[name])) or _ALL
    if isinstance(schema.get("allOf"), list):
        return _ALL.intersection(*(_kinds(each, root, depth + 1, left) for each in schema["allOf"])) or _ALL
    if "const" in schema:
        return frozenset({_kind(schema["const"])})
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return frozenset(map(_kind, schema["enum"]))
    given = schema.get("type")
    names = [given] if isinstance(given, str) else given if isinstance(given, list) else _implied(schema)
    return frozenset("number" if name == "integer" else str(name) for name in names) & _ALL or _ALL


def property_kinds(schema: Schema, name: str) -> frozenset[str]:
    """Kinds of one of a tool's arguments; all, if its schema does not know it."""
    properties = schema.get("properties")
    known = properties.get(name) if isinstance(properties, Mapping) else None
    return _ALL if known is None else json_kinds(known, schema)


def choices_of(schema: Schema) -> list[Any]:
    """The values that a schema names; empty: it names none."""
    given = [schema["const"]] if "const" in schema else schema.get("enum")
    return given if isinstance(given, list) else []


def options_of(schema: Schema) -> list[Any]:
    """The schemas of which one holds; empty: there are none."""
    given = schema.get("anyOf") or schema.get("oneOf")
    return given if isinstance(given, list) else []


def is_text(kinds: frozenset[str]) -> bool:
    """Whether a value is a text whatever it looks like."""
    return kinds == {"string"}


def as_json(text: str, kinds: frozenset[str]) -> str:
    """The JSON of an argument that a model wrote as text, without quotes round a string.

    What looks like another kind, and may be one, is that: 3, true, [1]; also in Python's words, True or {'a': None}.
    Everything else is a string, also where the schema knows none: better a wrong argument than a lost one.
    """
    if not is_text(kinds):
        found = _other_kind(text.strip())
        if found is not None and ("string" not in kinds or _kind_of(found) in kinds):
            return found
    return json.dumps(text, ensure_ascii=False)


def python_as_json(source: str) -> str | None:
    """The JSON of a literal in Python's words (or JSON's: true, null); None for what is none."""
    try:
        return json.dumps(_value(ast.parse(source.strip(), mode="eval").body), ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def is_json(text: str) -> bool:
    """Whether a text is one JSON value, blanks at its end included."""
    scanner = JsonScanner()
    end = scanner.scan(f"{text} ", 0)  # a number is over with the character after it
    return scanner.status is Status.DONE and not text[end:].strip()


def _other_kind(text: str) -> str | None:
    """The JSON of a value that is no string."""
    if text.lower() in _WORDS:
        return json.dumps(_WORDS[text.lower()])
    if not text or text[0] not in "-0123456789[{":
        return None
    if is_json(text):
        return text
    return python_as_json(text) if text[0] in "[{" else None


def _kind_of(text: str) -> str:
    return {"t": "boolean", "f": "boolean", "n": "null", "[": "array", "{": "object"}.get(text[0], "number")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    for kind, name in ((bool, "boolean"), (str, "string"), (list, "array"), (Mapping, "object")):
        if isinstance(value, kind):
            return name
    return "number"


def _implied(schema: Schema) -> list[str]:
    """A type that is not said, where keywords are those of one."""
    return ["object"] if "properties" in schema else ["array"] if "items" in schema else []


def referred(reference: str, root: Schema) -> Any:
    """What "#/…" refers to; None for nothing."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
    return found


def _value(node: ast.expr, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (str, int, float))):
        return node.value
    if isinstance(node, ast.Name) and node.id.lower() in _WORDS:
        return _WORDS[node.id.lower()]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand, depth + 1)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(each, depth + 1) for each in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key, depth + 1) for key in node.keys]
        if all(isinstance(key, str) for key in keys):
            return dict(zip(keys, (_value(each, depth + 1) for each in node.values), strict=True))
    raise ValueError("no literal that JSON knows")
