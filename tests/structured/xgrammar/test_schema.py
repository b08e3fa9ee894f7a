"""What is kept of JSON schemas: random outputs are valid for jsonschema; the rest is refused by its name."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.structured.xgrammar.keywords import FORMATS
from albireo.structured.xgrammar.schema import kept_schema
from structured.vocabularies import BACKENDS, constraint, follows
from structured.xgrammar.outputs import random_output

INTEGER, STRING = {"type": "integer"}, {"type": "string"}
AB = {"a": INTEGER, "ab": {"type": "null"}, "c": {}}
NODE = {
    "type": "object",
    "properties": {"v": INTEGER, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
    "required": ["v", "next"],
    "additionalProperties": False,
}
KEPT: list[dict[str, Any]] = [
    *(
        {"type": "number", "minimum": low, "maximum": high}
        for low, high in [(-2.5, -0.25), (0.1, 99.99), (-1, 1), (5, 5)]
    ),
    *({"type": "number", "exclusiveMinimum": low, "exclusiveMaximum": low + 1} for low in (0, -1, 1.5)),
    *({"type": kind, "minimum": -7.5} for kind in ("number", "integer")),
    {"type": "number", "exclusiveMaximum": 3.25},
    {"type": "integer", "exclusiveMaximum": 100, "minimum": 3.25},
    {"type": "integer", "multipleOf": 13},
    {"type": "integer", "multipleOf": 3, "minimum": -20, "maximum": 50},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "maxLength": 0},
    *({"type": "string", "format": name} for name in FORMATS),
    *({"pattern": pattern} for pattern in ["^[0-9]{5}$", "b", "^a|b$", r"\d+\.\d+", r"^\W$", "[^\\x00-\\x7f]"]),
    {"type": "object", "properties": AB, "required": ["ab", "zz"]},
    {"type": "object", "properties": AB, "additionalProperties": {"type": "boolean"}},
    {"type": "object", "properties": AB, "additionalProperties": False, "minProperties": 2},
    {"type": "object", "properties": AB, "additionalProperties": False, "maxProperties": 1},
    {"type": "object", "properties": AB, "maxProperties": 2, "required": ["c"], "minProperties": 1},
    {"type": "object", "minProperties": 1, "maxProperties": 2},
    {"type": "object", "maxProperties": 0},
    {"type": "object", "patternProperties": {"^x": INTEGER}},
    {"type": "array", "prefixItems": [INTEGER, STRING], "items": {"type": "null"}, "minItems": 3, "maxItems": 4},
    {"type": "array", "prefixItems": [INTEGER, STRING], "items": False},
    {"type": "array", "prefixItems": [INTEGER, STRING], "maxItems": 1},
    {"type": "array", "items": INTEGER, "minItems": 2, "maxItems": 2, "uniqueItems": False},
    {"type": "array", "maxItems": 0},
    {"enum": ["é\n", "a/b", 1.5, 12345678901234567, None, True, {"k": [1, "two"]}, 0.1, 1e300, '"\\']},
    {"type": "integer", "enum": [1, "a", 2.0, 2.5]},
    {"const": {"a": 0.1}},
    {"type": ["string", "null", "integer"], "maxLength": 3, "minimum": 3},
    {"minimum": 3, "maxLength": 2},
    {"oneOf": [INTEGER, STRING]},
    {"allOf": [INTEGER]},
    {"anyOf": [False, {"type": "boolean"}]},
    {"$defs": {"n": NODE}, "$ref": "#/$defs/n"},
    {
        "definitions": {"a b/c~d": INTEGER, "r": {"$ref": "#/definitions/a%20b~1c~0d"}},
        "items": {"$ref": "#/definitions/r"},
    },
    {"title": "anything"},
]


@pytest.mark.parametrize("backend", BACKENDS[1:])
@pytest.mark.parametrize("index", range(len(KEPT)))
def test_random_outputs_are_valid(backend: str, index: int) -> None:
    schema, chance = KEPT[index], random.Random(index)
    compiled = constraint(json=schema, backend=backend)
    made = [random_output(compiled.matcher(), chance) for _ in range(3)]
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(["ipv4", "uuid"]))
    assert any(output is not None for output in made)
    for output in made:
        if output is not None:
            checker.validate(json.loads(output.decode()))


@pytest.mark.parametrize("backend", BACKENDS[1:])
def test_what_the_library_alone_would_get_wrong(backend: str) -> None:
    open_object = {"type": "object", "properties": {"a": INTEGER, "ab": INTEGER}}
    for schema, right, wrong in [
        # a name that is required and not listed
        ({**open_object, "required": ["z"]}, '{"a":1,"z":"x"}', '{"a":1}'),
        # a name that is listed, once more, by way of an escape
        (open_object, '{"a":1,"abc\\u0061":"x"}', '{"a":1,"\\u0061":"x"}'),
        (open_object, '{"a":1,"b":"x"}', '{"a":1,"a\\u0062":"x"}'),
        # names beyond ASCII, and letters behind them that are hexadecimal digits
        ({"type": "object", "properties": {"größe": INTEGER}}, '{"größe":1,"gr":"x","ö":2}', '{"größe":1,"größe":"x"}'),
        ({"type": "object", "properties": {"ß": INTEGER}}, '{"a":"x"}', '{"a":1,"ß":"x"}'),
        ({"type": "object", "properties": {"ß": INTEGER, "ßa": {}}}, '{"ß":1,"ßa":"x","ßab":2}', '{"ß":"x"}'),
        ({"enum": ["ße", "Āe", "🦊e", "\x7fe", "\\xdfe"]}, '"🦊e"', '"\u0dfe"'),
        ({"enum": ["ße", "Āe", "🦊e", "\x7fe", "\\xdfe"]}, '"ße"', '"ß"'),
        ({"enum": ["ße", "Āe", "🦊e", "\x7fe", "\\xdfe"]}, '"\\\\xdfe"', '"\\\\xdf"'),
        # control characters in strings of a length
        ({"type": "string", "minLength": 1}, '"a"', '"\t"'),
        ({"type": "string", "minLength": 1, "maxLength": 1}, '"a"', '"\t"'),
        # patterns stand anywhere in a string, keywords count without a type
        ({"type": "string", "pattern": "b"}, '"abc"', '"ac"'),
        ({"pattern": "^a$"}, "5", '"b"'),
        ({"anyOf": [{"minimum": 3}]}, "3", "2"),
    ]:
        assert follows("bundled", right, json=schema, backend=backend), right
        assert not follows("bundled", wrong, json=schema, backend=backend), wrong


@pytest.mark.parametrize(
    ("schema", "name"),
    [
        ({"not": STRING}, "not"),
        ({"type": "object", "if": {}, "then": {}}, "if, then"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "array", "contains": INTEGER, "minContains": 2}, "contains, minContains"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"type": "object", "properties": AB, "patternProperties": {"^x": {}}}, "patternProperties"),
        ({"type": "object", "properties": {"a": False}}, "false as the schema of a property"),
        ({"allOf": [INTEGER, {"minimum": 3}]}, "allOf of several"),
        ({"anyOf": [INTEGER], "type": "integer"}, "type beside anyOf"),
        ({"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": INTEGER}}, "minimum beside $ref"),
        ({"enum": [1], "minimum": 3}, "minimum beside enum"),
        ({"const": 2**70}, "64 bits"),
        ({"type": "integer", "minimum": 2**70}, "64 bits"),
        ({"type": "number", "multipleOf": 0.1}, "multipleOf"),
        ({"type": "integer", "multipleOf": 3, "minimum": 0}, "multipleOf in a range without end"),
        ({"type": "number", "minimum": 1e-9}, "minimum with more than 6 decimals"),
        ({"type": "string", "pattern": "^a", "maxLength": 3}, "maxLength beside pattern"),
        ({"type": "string", "format": "date", "maxLength": 3}, "maxLength beside format date"),
        ({"type": "string", "format": "email"}, "format email"),
        ({"type": "array", "items": [INTEGER]}, "prefixItems"),
        ({"type": "integer", "x-guidance": {}}, "x-guidance"),
        ({"properties": {"deep": {"items": {"frobnicate": 1}}}}, "frobnicate at /properties/deep/items"),
    ],
)
def test_a_keyword_that_is_not_kept_is_named(schema: dict[str, Any], name: str) -> None:
    with pytest.raises(UnsupportedFeature) as caught:
        kept_schema(schema, is_closed=False)
    assert name in str(caught.value) and str(caught.value).startswith("structured_outputs.json")


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"type": []}, "type must be"),
        ({"type": [["string"]]}, "Invalid type"),
        ({"$ref": "http://127.0.0.1/x"}, "must be #"),
        ({"$ref": "#/nowhere"}, "leads nowhere"),
        ({"$ref": "#"}, "leads back to itself"),
        ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "items": {"$ref": "#/$defs/a"}}, "leads back to itself"),
        ({"enum": []}, "nothing fits"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "nothing fits"),
        ({"type": "number", "minimum": 3, "exclusiveMaximum": 3}, "nothing fits"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "nothing fits"),
        ({"type": "array", "items": False, "minItems": 1}, "nothing fits"),
        ({"type": "object", "additionalProperties": False, "required": ["a"]}, "nothing fits"),
        ({"type": "integer", "multipleOf": 7, "minimum": 1, "maximum": 6}, "nothing fits"),
        ({"type": "integer", "minimum": "3"}, "minimum must be a number"),
        ({"type": "string", "minLength": -1}, "minLength must be"),
        ({"type": "string", "format": ["date"]}, "format must be a string"),
        ({"properties": []}, "properties must be"),
        ({"required": "a"}, "required must be"),
        ({"anyOf": []}, "anyOf must be"),
        ({"items": 5}, "must be an object or true"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidParams, match=words):
        if kept_schema(schema, is_closed=False) and "items" in schema:
            raise AssertionError("it was taken")
        if "properties" in schema or "required" in schema:
            raise AssertionError("it was taken")
