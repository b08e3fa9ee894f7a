"""A JSON schema -> one that says the same and that xgrammar keeps whole; what it would ignore is refused by name.

Called by request.py. xgrammar looks at the first keyword that it knows ($ref, const, enum, anyOf, …, type) and drops
those beside it without a word. So nothing is handed on but what is known to be kept: each schema is taken apart into
alternatives of one type with that type's keywords (keywords.py), and references go to definitions of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.property_names import without_property_names
from albireo.structured.xgrammar.keywords import BY_TYPE, Schema, kept_keywords

_TYPES = ("object", "array", "string", "number", "boolean", "null")
_ANNOTATIONS = frozenset(
    [
        "title",
        "default",
        "description",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "$comment",
        "$schema",
        "$defs",
        "definitions",
    ]
)
_ALONE = ("$ref", "anyOf", "oneOf", "allOf")
_KNOWN = frozenset(name for names in BY_TYPE.values() for name in names)
#: Integers outside lose digits in xgrammar's numbers.
_INT64 = range(-(2**63), 2**63)


def kept_schema(schema: Mapping[str, Any], *, is_closed: bool) -> Schema:
    """The schema for xgrammar.

    Args: is_closed: objects that name properties have no others, unless they say so themselves.
    Raises: UnsupportedFeature naming the keyword and where it stands; InvalidParams for a schema that is none, or
        that nothing fits.
    """
    schema = without_property_names(schema)
    walk = _Walk(schema, is_closed)
    found = walk.schema(schema, "")
    if found is None:
        raise InvalidParams("structured_outputs.json cannot be used: nothing fits it")
    walk.finish()
    return {**found, "$defs": walk.definitions} if walk.definitions else found


class _Walk:
    """Attributes: definitions: name -> schema of what references go to."""

    def __init__(self, root: Mapping[str, Any], is_closed: bool) -> None:
        self.definitions: dict[str, Schema] = {}
        self._root, self._is_closed = root, is_closed
        self._names: dict[str, str] = {}
        self._waiting: list[tuple[str, str]] = []

    def schema(self, schema: Any, place: str) -> Schema | None:
        """Args: place: JSON pointer. Returns: None when nothing fits."""
        if isinstance(schema, bool):
            return {} if schema else None
        if not isinstance(schema, Mapping):
            raise InvalidParams(f"structured_outputs.json{_at(place)} must be an object or true, got {schema!r:.60}")
        keys = [key for key in schema if key not in _ANNOTATIONS]
        for key in _ALONE:
            if key in keys:
                if len(keys) > 1:
                    others = ", ".join(each for each in keys if each != key)
                    raise self.unsupported(f"{others} beside {key}", place)
                return self._combined(key, schema[key], place)
        if "const" in keys or "enum" in keys:
            return self._values(schema, keys, place)
        unknown = [key for key in keys if key not in _KNOWN and key != "type"]
        if unknown:
            raise self.unsupported(", ".join(unknown), place)
        if not keys:
            return {}
        found = []
        for kind in _types(schema, place):
            keywords = {key: schema[key] for key in BY_TYPE[kind] if key in schema}
            made = kept_keywords(kind, keywords, self, place)
            if made is not None:
                found.append(made)
        return _any_of(found)

    def finish(self) -> None:
        """Make the definitions that references went to."""
        while self._waiting:
            name, pointer = self._waiting.pop()
            made = self.schema(self._resolved(pointer), pointer.removeprefix("#"))
            if made is None:
                raise InvalidParams(f"structured_outputs.json: nothing fits {pointer:.200}")
            self.definitions[name] = made

    @property
    def is_closed(self) -> bool:
        """See kept_schema()."""
        return self._is_closed

    @staticmethod
    def unsupported(what: str, place: str) -> UnsupportedFeature:
        """xgrammar does not keep this."""
        return UnsupportedFeature(
            f"structured_outputs.json asks for what xgrammar does not keep: {what:.200}{_at(place)}; "
            "leave it out, or use llguidance"
        )

    @staticmethod
    def wrong(what: str, place: str) -> InvalidParams:
        """This is no JSON schema."""
        return InvalidParams(f"structured_outputs.json: {what}{_at(place)}")

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _combined(self, key: str, value: Any, place: str) -> Schema | None:
        if key == "$ref":
            return {"$ref": f"#/$defs/{self._definition(value, place)}"}
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self.wrong(f"{key} must be a list that is not empty", place)
        if key == "allOf" and len(value) > 1:
            raise self.unsupported("allOf of several", place)
        return _any_of(
            [
                made
                for index, each in enumerate(value)
                if (made := self.schema(each, f"{place}/{key}/{index}")) is not None
            ]
        )

    def _values(self, schema: Mapping[str, Any], keys: Sequence[str], place: str) -> Schema | None:
        key = "const" if "const" in keys else "enum"
        others = [each for each in keys if each not in (key, "type")]
        if others:
            raise self.unsupported(f"{', '.join(others)} beside {key}", place)
        values = [schema[key]] if key == "const" else schema[key]
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise self.wrong("enum must be a list", place)
        if "type" in schema:
            kinds = _types(schema, place)
            values = [value for value in values if any(_is_of(value, kind) for kind in kinds)]
        for value in values:
            self._check_numbers(value, place)
        return {"enum": list(values)} if values else None

    def _check_numbers(self, value: Any, place: str) -> None:
        if isinstance(value, int) and value not in _INT64:
            raise self.unsupported("a number of more than 64 bits", place)
        for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
            self._check_numbers(inner, place)

    def _definition(self, ref: Any, place: str) -> str:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise InvalidParams(f"structured_outputs.json: $ref {ref!r:.80}{_at(place)} must be #, or begin with #/")
        seen = set()
        while True:  # a reference to a reference goes where that one does
            if ref in seen:
                raise InvalidParams(f"structured_outputs.json: $ref {ref!r:.80} leads back to itself")
            seen.add(ref)
            target = self._resolved(ref)
            if not isinstance(target, Mapping) or set(target) - _ANNOTATIONS != {"$ref"}:
                break
            ref = target["$ref"]
            if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
                raise InvalidParams(f"structured_outputs.json: $ref {ref!r:.80} must be #, or begin with #/")
        if ref not in self._names:
            self._names[ref] = f"d{len(self._names)}"
            self._waiting.append((self._names[ref], ref))
        return self._names[ref]

    def _resolved(self, ref: str) -> Any:
        found: Any = self._root
        for part in ref.split("/")[1:]:
            name = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise InvalidParams(f"structured_outputs.json: $ref {ref!r:.80} leads nowhere")
        return found


def _any_of(found: list[Schema]) -> Schema | None:
    return None if not found else found[0] if len(found) == 1 else {"anyOf": found}


def _types(schema: Mapping[str, Any], place: str) -> list[str]:
    if "type" not in schema:
        return list(_TYPES)
    given = schema["type"]
    kinds = [given] if isinstance(given, str) else given
    if not isinstance(kinds, Sequence) or not kinds:
        raise _Walk.wrong("type must be a name, or a list of names", place)
    for kind in kinds:
        if not isinstance(kind, str) or kind not in BY_TYPE:
            raise _Walk.wrong(f"Invalid type: {kind!s:.60}", place)
    return [kind for kind in dict.fromkeys(kinds) if not (kind == "integer" and "number" in kinds)]


def _is_of(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, (int, float)):
        return kind == "number" or (kind == "integer" and value == int(value))
    return kind == ("string" if isinstance(value, str) else "object" if isinstance(value, Mapping) else "array")


def _at(place: str) -> str:
    return f" at {place:.200}" if place else ""
