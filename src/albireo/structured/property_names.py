"""`propertyNames` of a JSON schema -> what says the same by properties, patternProperties and additionalProperties.

No backend keeps the keyword, and libraries write it for every map: Zod's records say that names are strings, which all
are; pydantic's dictionaries of a Literal or an Enum say which there may be. What has no such form stays as it is, to be
refused by name. Called by the backends; does not know them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from albireo.structured.subschemas import with_each

_ANNOTATIONS = frozenset(["title", "description", "$comment", "default", "examples", "deprecated"])
_KEY = "propertyNames"


def without_property_names(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, without the keyword wherever it can be said by others."""

    def plain(each: Any) -> Any:
        if not isinstance(each, Mapping):
            return each
        out = with_each(each, plain)
        return _said_by_others(out, _resolved(out[_KEY], schema)) if _KEY in out else out

    found: Mapping[str, Any] = plain(schema)
    return found


def _said_by_others(schema: dict[str, Any], names: Any) -> dict[str, Any]:
    """Args: names: the schema of names, if it is one that is known here."""
    rest = {key: value for key, value in schema.items() if key != _KEY}
    if names is True:
        return rest
    if not isinstance(names, Mapping) or names.get("type", "string") != "string":
        return schema
    keywords = {key: value for key, value in names.items() if key not in _ANNOTATIONS and key != "type"}
    if not keywords:
        return rest
    others = schema.get("additionalProperties", True)
    counts_others = "patternProperties" in schema or "unevaluatedProperties" in schema
    pattern = keywords.get("pattern")
    if len(keywords) == 1 and isinstance(pattern, str) and not counts_others and "properties" not in schema:
        return {**rest, "patternProperties": {pattern: others}, "additionalProperties": False}
    allowed = [keywords["const"]] if keywords.keys() == {"const"} else keywords.get("enum")
    if len(keywords) != 1 or not isinstance(allowed, list) or counts_others:
        return schema
    given, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(given, Mapping) or not isinstance(required, list):
        return schema
    names_allowed = set(map(str, allowed))
    if not all(isinstance(name, str) and name in names_allowed for name in required):
        return schema
    listed = [name for name in allowed if isinstance(name, str) and (name in given or others is not False)]
    return {**rest, "properties": {name: given.get(name, others) for name in listed}, "additionalProperties": False}


def _resolved(names: Any, root: Mapping[str, Any]) -> Any:
    """The schema that a reference to a definition goes to; any other as it is."""
    if not isinstance(names, Mapping) or names.keys() - _ANNOTATIONS != {"$ref"} or not isinstance(names["$ref"], str):
        return names
    parts = names["$ref"].split("/")
    if len(parts) != 3 or parts[0] != "#" or not isinstance(root.get(parts[1]), Mapping):
        return names
    return root[parts[1]].get(unquote(parts[2]).replace("~1", "/").replace("~0", "~"), names)
