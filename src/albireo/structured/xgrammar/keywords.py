"""The keywords of one JSON type, as xgrammar keeps them.

Called by schema.py for each type that a schema allows. A type that the keywords leave nothing of is None; what is told
narrower than it was (a tuple with all of its items, a number with few decimals) still fits what was asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.xgrammar import regex

Schema = dict[str, Any]

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
BY_TYPE: dict[str, tuple[str, ...]] = {
    "object": (
        *("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
        *("propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
    ),
    "array": (
        *("items", "prefixItems", "minItems", "maxItems", "uniqueItems"),
        *("contains", "minContains", "maxContains", "unevaluatedItems", "additionalItems"),
    ),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "integer": (*_BOUNDS, "multipleOf"),
    "number": (*_BOUNDS, "multipleOf"),
    "boolean": (),
    "null": (),
}
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#: Formats that are kept, with a pattern where xgrammar's own lets more pass; of the calendar only days from 1 to 31.
FORMATS: dict[str, str | None] = {
    "date": None,
    "time": None,
    "date-time": None,
    "duration": None,
    "ipv4": rf"^({_BYTE}\.){{3}}{_BYTE}$",
    "uuid": None,
}
#: Formats of JSON Schema that xgrammar does not keep, or not right. Others are somebody's own, and annotations.
_OTHER_FORMATS = frozenset(
    [
        "email",
        "idn-email",
        "hostname",
        "idn-hostname",
        "ipv6",
        "uri",
        "uri-reference",
        "iri",
        "iri-reference",
        "uri-template",
        "json-pointer",
        "relative-json-pointer",
        "regex",
    ]
)
_MOST_MULTIPLE, _MOST_MULTIPLES = 1024, 10_000
_INT64 = range(-(2**63), 2**63)
#: Bounds of numbers are told to xgrammar with so many decimals.
_DECIMALS = 6


class Walk(Protocol):
    """What schema.py does for the schemas within."""

    @property
    def is_closed(self) -> bool: ...

    def schema(self, schema: Any, place: str) -> Schema | None: ...

    def unsupported(self, what: str, place: str) -> UnsupportedFeature: ...

    def wrong(self, what: str, place: str) -> InvalidParams: ...


def kept_keywords(kind: str, given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    """A schema of this type with these of its keywords. Returns: None when nothing fits. Raises: as kept_schema()."""
    made = _MAKERS[kind](given, walk, place) if kind in _MAKERS else {}
    return None if made is None else {"type": kind, **made}


def _integer(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    lows = [math.ceil(value) for value in _bound(given, "minimum", walk, place)]
    lows += [math.floor(value) + 1 for value in _bound(given, "exclusiveMinimum", walk, place)]
    highs = [math.floor(value) for value in _bound(given, "maximum", walk, place)]
    highs += [math.ceil(value) - 1 for value in _bound(given, "exclusiveMaximum", walk, place)]
    made: Schema = {}
    for name, values, choose in (("minimum", lows, max), ("maximum", highs, min)):
        if values:
            made[name] = choose(values)
            if made[name] not in _INT64:
                raise walk.unsupported("a bound of more than 64 bits", place)
    if lows and highs and made["minimum"] > made["maximum"]:
        return None
    if "multipleOf" in given:
        step = given["multipleOf"]
        if not _is_number(step) or step <= 0:
            raise walk.wrong("multipleOf must be a number above 0", place)
        if step != int(step) or step > _MOST_MULTIPLE:
            raise walk.unsupported(f"multipleOf {step}: whole numbers up to {_MOST_MULTIPLE} are", place)
        if made and (len(made) < 2 or made["maximum"] - made["minimum"] >= _MOST_MULTIPLES):
            raise walk.unsupported(f"multipleOf in a range without end, or of more than {_MOST_MULTIPLES}", place)
        if made and made["minimum"] + -made["minimum"] % step > made["maximum"]:
            return None
        made["multipleOf"] = int(step)
    return made


def _number(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    if "multipleOf" in given:
        raise walk.unsupported("multipleOf of a number; integers have it", place)
    made: Schema = {}
    for name in _BOUNDS:
        for value in _bound(given, name, walk, place):
            if abs(value) >= 10**15 or round(value, _DECIMALS) != value:
                raise walk.unsupported(f"{name} with more than {_DECIMALS} decimals, or of 10^15 and more", place)
            made[name] = value
    low = max((made[name] for name in ("minimum", "exclusiveMinimum") if name in made), default=-math.inf)
    high = min((made[name] for name in ("maximum", "exclusiveMaximum") if name in made), default=math.inf)
    is_open = low in (made.get("exclusiveMinimum"),) or high in (made.get("exclusiveMaximum"),)
    return None if low > high or (low == high and is_open) else made


def _string(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    made: Schema = {}
    given = dict(given)
    name = given.pop("format", "")
    if not isinstance(name, str):
        raise walk.wrong("format must be a string", place)
    if name in _OTHER_FORMATS:
        raise walk.unsupported(f"format {name}", place)
    if name in FORMATS:
        if given:
            raise walk.unsupported(f"{', '.join(given)} beside format {name}", place)
        pattern = FORMATS[name]
        return {"format": name} if pattern is None else {"pattern": _pattern(pattern, walk, place)}
    if "pattern" in given:
        if len(given) > 1:
            raise walk.unsupported(f"{', '.join(key for key in given if key != 'pattern')} beside pattern", place)
        return {"pattern": _pattern(given["pattern"], walk, place)}
    for key in ("minLength", "maxLength"):
        if key in given:
            made[key] = _count(given, key, walk, place)
    return None if made.get("minLength", 0) > made.get("maxLength", math.inf) else made


def _array(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    _refuse(given, ("contains", "minContains", "maxContains", "unevaluatedItems", "additionalItems"), walk, place)
    if given.get("uniqueItems", False) is not False:
        raise walk.unsupported("uniqueItems", place)
    if isinstance(given.get("items"), list):
        raise walk.unsupported("items as a list; prefixItems is", place)
    least, most = _count(given, "minItems", walk, place), given.get("maxItems")
    most = None if most is None else _count(given, "maxItems", walk, place)
    heads = given.get("prefixItems", [])
    if not isinstance(heads, list):
        raise walk.wrong("prefixItems must be a list", place)
    prefix = [walk.schema(each, f"{place}/prefixItems/{index}") for index, each in enumerate(heads)]
    items = walk.schema(given["items"], f"{place}/items") if "items" in given else {}
    if None in prefix:
        raise walk.unsupported("false within prefixItems", place)
    if most is not None and most <= len(prefix):
        prefix, items = prefix[:most], None
    if (most is not None and least > most) or (items is None and least > len(prefix)):
        return None
    made: Schema = {"items": False if items is None else items}
    if prefix:
        made["prefixItems"] = prefix
    if items is not None:
        made |= {"minItems": least} if least else {}
        made |= {"maxItems": most} if most is not None else {}
    return made


def _object(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    _refuse(
        given,
        ("propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties"),
        walk,
        place,
    )
    properties, required = given.get("properties", {}), given.get("required", [])
    if not isinstance(properties, Mapping):
        raise walk.wrong("properties must be an object", place)
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise walk.wrong("required must be a list of names", place)
    is_open = not (walk.is_closed and "properties" in given)
    others = walk.schema(given.get("additionalProperties", is_open), f"{place}/additionalProperties")
    if "patternProperties" in given:
        return _by_pattern(given, walk, place)
    found = {name: walk.schema(each, f"{place}/properties/{name}") for name, each in properties.items()}
    if None in found.values():
        raise walk.unsupported("false as the schema of a property", place)
    # xgrammar forgets a name that is required and not among the properties.
    for name in required:
        if name not in found:
            if others is None:
                return None
            found[name] = others
    made: Schema = {"additionalProperties": False if others is None else others}
    if found:
        made |= {"properties": found, "required": list(dict.fromkeys(required))}
    if others is not None and not all(name.isascii() for name in found):
        # xgrammar takes the bytes of such a name for characters, and does not know it among the others.
        made |= {"patternProperties": {f"^({regex.other_names(found)})$": others}, "additionalProperties": False}
    return _counted(made, given, walk, place)


def _counted(made: Schema, given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    """With minProperties and maxProperties, where xgrammar counts right: it lets names that it does not know repeat."""
    least = _count(given, "minProperties", walk, place)
    num_required, num_known = len(made.get("required", ())), len(made.get("properties", ()))
    is_closed = made["additionalProperties"] is False and "patternProperties" not in made
    if least > num_required and not is_closed and not (least == 1 and not num_known):
        raise walk.unsupported("minProperties of an object with names of its own", place)
    most = _count(given, "maxProperties", walk, place) if "maxProperties" in given else None
    if (most is not None and (most < num_required or most < least)) or (is_closed and least > num_known):
        return None
    made |= {"minProperties": least} if least > num_required else {}
    made |= {"maxProperties": most} if most is not None else {}
    return made


def _by_pattern(given: Mapping[str, Any], walk: Walk, place: str) -> Schema | None:
    patterns = given["patternProperties"]
    if not isinstance(patterns, Mapping):
        raise walk.wrong("patternProperties must be an object", place)
    beside = [name for name in ("properties", "required", "minProperties", "maxProperties") if given.get(name)]
    if beside or len(patterns) != 1:
        raise walk.unsupported(
            f"patternProperties of several, or with {', '.join(beside) or 'others'} beside it", place
        )
    ((pattern, schema),) = patterns.items()
    made = walk.schema(schema, f"{place}/patternProperties")
    if made is None:
        raise walk.unsupported("false as the schema of a property", place)
    return {"patternProperties": {_pattern(pattern, walk, place): made}, "additionalProperties": False}


_MAKERS: dict[str, Callable[[Mapping[str, Any], Walk, str], Schema | None]] = {
    "integer": _integer,
    "number": _number,
    "string": _string,
    "array": _array,
    "object": _object,
}


def _pattern(pattern: Any, walk: Walk, place: str) -> str:
    if not isinstance(pattern, str):
        raise walk.wrong("a pattern must be text", place)
    return f"^({regex.in_json(pattern, f'structured_outputs.json: pattern at {place:.100}')})$"


def _refuse(given: Mapping[str, Any], names: tuple[str, ...], walk: Walk, place: str) -> None:
    found = [name for name in names if name in given]
    if found:
        raise walk.unsupported(", ".join(found), place)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _bound(given: Mapping[str, Any], name: str, walk: Walk, place: str) -> list[int | float]:
    if name not in given:
        return []
    if not _is_number(given[name]):
        raise walk.wrong(f"{name} must be a number", place)
    return [given[name]]


def _count(given: Mapping[str, Any], name: str, walk: Walk, place: str) -> int:
    value = given.get(name, 0)
    if not _is_number(value) or value < 0 or value != int(value):
        raise walk.wrong(f"{name} must be a whole number of at least 0", place)
    if value >= 2**31:
        raise walk.unsupported(f"{name} of 2^31 and more", place)
    return int(value)
