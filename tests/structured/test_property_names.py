"""propertyNames is kept by either backend where others can say the same, as jsonschema has it."""

from __future__ import annotations

import enum
import itertools
import json
from typing import Any, Literal

import jsonschema
import pydantic
import pytest

from albireo.errors import UnsupportedFeature
from albireo.structured.property_names import without_property_names
from structured.vocabularies import BACKENDS, constraint, follows

NUMBER, STRING = {"type": "integer"}, {"type": "string"}
AB = {"enum": ["a", "b"]}
DEFINED = {"$defs": {"E/~": {"type": "string", "title": "E", **AB}}, "propertyNames": {"$ref": "#/$defs/E~1~0"}}
#: Schemas whose keyword can be said by others.
SAID: list[dict[str, Any]] = [
    {"type": "object", "propertyNames": STRING, "additionalProperties": NUMBER},
    {"type": "object", "propertyNames": {"type": "string", "description": "names"}, "properties": {"a": NUMBER}},
    {"type": "object", "propertyNames": True},
    {"type": "object", "propertyNames": {}},
    {"type": "object", "propertyNames": {**STRING, **AB}, "additionalProperties": NUMBER, "required": ["a"]},
    {"type": "object", "propertyNames": AB},
    {"type": "object", "propertyNames": {"const": "a"}, "additionalProperties": NUMBER},
    {"type": "object", "propertyNames": AB, "properties": {"a": NUMBER, "c": NUMBER}, "additionalProperties": False},
    {"type": "object", "propertyNames": AB, "properties": {"a": NUMBER}, "additionalProperties": STRING},
    {"type": "object", "propertyNames": {**STRING, "pattern": "^[ab]"}, "additionalProperties": NUMBER},
    {"type": "object", "propertyNames": {"pattern": "b$"}},
    {"type": "object", **DEFINED, "additionalProperties": NUMBER},
    {"type": "array", "items": {"type": "object", "propertyNames": AB, "additionalProperties": NUMBER}, "minItems": 1},
    {"anyOf": [{"type": "object", "propertyNames": STRING, "additionalProperties": NUMBER}, NUMBER]},
]
#: Those that are refused by name, as they were.
LEFT: list[dict[str, Any]] = [
    {"type": "object", "propertyNames": {"maxLength": 3}},
    {"type": "object", "propertyNames": {"type": "string", "format": "uuid"}},
    {"type": "object", "propertyNames": {"enum": ["a"]}, "required": ["b"]},
    {"type": "object", "propertyNames": {"pattern": "a"}, "properties": {"b": NUMBER}},
    {"type": "object", "propertyNames": AB, "patternProperties": {"a": NUMBER}},
    {"type": "object", "propertyNames": False},
]
OBJECTS = [
    dict(zip(names, values, strict=True))
    for names in ((), ("a",), ("b",), ("c",), ("ab",), ("a", "b"), ("a", "c"))
    for values in itertools.product((1, "x"), repeat=len(names))
]
VALUES: list[Any] = [*OBJECTS, 5, "a", [], *([each] for each in OBJECTS)]


@pytest.mark.parametrize("schema", SAID, ids=json.dumps)
def test_others_say_the_same(schema: dict[str, Any]) -> None:
    made = without_property_names(schema)
    assert '"propertyNames"' not in json.dumps(made)
    for value in VALUES:
        assert jsonschema.Draft202012Validator(made).is_valid(value) == jsonschema.Draft202012Validator(
            schema
        ).is_valid(value), value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schema", SAID, ids=json.dumps)
def test_backends_keep_it(backend: str, schema: dict[str, Any]) -> None:
    checker = jsonschema.Draft202012Validator(schema)
    fitting = [value for value in VALUES if isinstance(value, (dict, list))]
    assert {checker.is_valid(value) for value in fitting} >= {True}
    for value in fitting:
        text = json.dumps(value, separators=(",", ":"))
        assert follows("bundled", text, json=schema, backend=backend) == checker.is_valid(value), text


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("schema", LEFT, ids=json.dumps)
def test_what_has_no_other_form_is_refused_by_name(backend: str, schema: dict[str, Any]) -> None:
    assert without_property_names(schema) == schema
    with pytest.raises(UnsupportedFeature, match="propertyNames"):
        constraint(json=schema, backend=backend)


class Kind(enum.Enum):
    A, B = "a", "b"


@pytest.mark.parametrize("key", [str, Literal["a", "b"], Kind])
def test_dictionaries_of_pydantic(key: Any) -> None:
    schema = pydantic.TypeAdapter(dict[key, int]).json_schema()
    assert follows("bundled", '{"a":1,"b":2}', json=schema)
    assert follows("bundled", '{"c":1}', json=schema) == (key is str)


@pytest.mark.parametrize(
    "odd",
    [
        {"propertyNames": {"pattern": []}},
        {"propertyNames": {"pattern": 5}},
        {"propertyNames": {"enum": ["a"]}, "required": 5},
        {"propertyNames": {"enum": ["a"]}, "required": None},
        {"propertyNames": {"enum": ["a"]}, "required": [["a"]]},
        {"propertyNames": {"enum": 5}},
        {"propertyNames": {"$ref": "#/$defs/a"}, "$defs": 5},
        {"propertyNames": 5},
    ],
)
def test_what_is_no_schema_is_left_to_those_that_read_schemas(odd: dict[str, Any]) -> None:
    assert without_property_names(odd) == odd
