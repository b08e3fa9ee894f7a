"""Where a JSON schema has further ones in it.

Used by what rewrites schemas. Does not know what keywords mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_ONE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")


def with_each(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """A copy of a schema, with change() applied to each one right inside of it."""
    out = dict(schema)
    for key in _ONE:
        if key in out and not isinstance(out[key], list):
            out[key] = change(out[key])
    for key in _LISTS:
        if isinstance(out.get(key), list):
            out[key] = [change(each) for each in out[key]]
    for key in _MAPS:
        if isinstance(out.get(key), Mapping):
            out[key] = {name: change(each) for name, each in out[key].items()}
    return out
