"""The form of an output: exactly one, and small enough to be compiled in bounded time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from albireo.errors import InvalidParams
from albireo.params import SamplingParams
from albireo.structured_params import (
    BACKENDS,
    MAX_CHOICES,
    MAX_GRAMMAR_BYTES,
    MAX_REGEX_CHARS,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    StructuredOutputsParams,
)

VALID: list[dict[str, Any]] = [
    {"json": {"type": "object"}},
    {"json": '{"type": "object"}'},
    {"regex": ""},
    {"choice": ["a", "b"]},
    {"grammar": 'start: "a"'},
    {"json_object": True},
    {"structural_tag": {"structures": [], "triggers": []}},
]


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize("given", VALID)
def test_each_form_alone_is_taken_also_as_an_object_with_nulls(given: dict[str, Any]) -> None:
    params = StructuredOutputsParams(**given)
    assert params.kind == next(iter(given))
    neutral = {"regex": None, "json_object": None, "disable_any_whitespace": False, **given}
    assert SamplingParams(structured_outputs=neutral).structured_outputs == params


def test_a_form_wants_all_logits_and_the_schema_is_read_from_either_shape() -> None:
    assert SamplingParams(temperature=0).num_top == 1
    assert SamplingParams(temperature=0, structured_outputs={"regex": "a"}).needs_logits
    for given in ({"type": "object"}, '{"type": "object"}'):
        assert StructuredOutputsParams(json=given).schema == {"type": "object"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "none of json"),
        ({"json_object": False}, "none of json"),
        ({"regex": "a", "choice": ["b"]}, "regex and choice of"),
        ({"json": "[1]"}, "json must be a JSON object"),
        ({"json": "{"}, "json is no JSON"),
        ({"json": {"const": {1, 2}}}, "what JSON cannot say"),
        ({"json": {"const": float("nan")}}, "what JSON cannot say"),
        ({"json": {"pad": "x" * MAX_SCHEMA_BYTES}}, f"json has {MAX_SCHEMA_BYTES + 11} bytes, the limit is"),
        ({"json": '{"a": "' + "x" * MAX_SCHEMA_BYTES + '"}'}, "bytes, the limit is"),
        ({"json": nested(MAX_SCHEMA_DEPTH + 1)}, f"more than {MAX_SCHEMA_DEPTH} deep"),
        ({"json": '{"a":' * 20_000 + "1" + "}" * 20_000}, "deep, which is the limit"),
        ({"json": "[" * 100_000}, "deep, which is the limit"),
        ({"regex": "a" * (MAX_REGEX_CHARS + 1)}, "regex has 8193 characters, the limit is 8192"),
        ({"regex": 5}, "regex must be text"),
        ({"regex": "\ud800"}, "half of a surrogate pair"),
        ({"grammar": "x" * (MAX_GRAMMAR_BYTES + 1)}, "grammar has 65537 bytes"),
        ({"grammar": "é" * (MAX_GRAMMAR_BYTES // 2 + 1)}, "grammar has 65538 bytes"),
        ({"grammar": "  "}, "grammar is empty"),
        ({"choice": b"ab"}, "choice must be a list of strings"),
        ({"choice": 5}, "choice must be a list of strings"),
        ({"structural_tag": "[1]"}, "structural_tag must be a JSON object"),
        ({"json_object": True, "whitespace_pattern": "a" * 8193}, "whitespace_pattern has 8193 characters"),
        ({"choice": []}, "choice must be a list of strings"),
        ({"choice": "ab"}, "choice must be a list of strings"),
        ({"choice": ["a", 1]}, "choice must be text"),
        ({"choice": ["a"] * (MAX_CHOICES + 1)}, "choice has 4097 strings"),
        ({"choice": ["é" * 20_000] * 2}, "choice has 80000 bytes"),
        ({"json_object": "yes"}, "json_object must be true or false"),
        ({"regex": "a", "disable_any_whitespace": True}, "regex knows no JSON"),
        ({"json_object": True, "disable_any_whitespace": 1}, "disable_any_whitespace must be true or false"),
        ({"json_object": True, "disable_any_whitespace": True, "whitespace_pattern": " "}, "contradict"),
        ({"jsn": {}}, "no field 'jsn'"),
        ({"regex": "a", "backend": "outlines"}, "backend='outlines' is unknown; choose llguidance, xgrammar, auto"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field_and_the_limit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        SamplingParams(structured_outputs=given)


def test_an_object_that_holds_itself_is_too_deep() -> None:
    endless: dict[str, Any] = {}
    endless["items"] = [endless, endless]
    with pytest.raises(InvalidParams, match="deep"):
        StructuredOutputsParams(json=endless)
    wide = {"enum": [[0]] * (MAX_SCHEMA_BYTES + 1)}
    with pytest.raises(InvalidParams, match="more than 131072 values; make it smaller"):
        StructuredOutputsParams(json=wide)


def test_an_object_that_holds_others_twice_is_not_written_out() -> None:
    """Of 20 objects, and as many values as their paths: a million."""
    doubled: dict[str, Any] = {}
    for _ in range(20):
        doubled = {"a": doubled, "b": doubled}
    with pytest.raises(InvalidParams, match="more than 131072 values"):
        StructuredOutputsParams(json=doubled)


@pytest.mark.parametrize(
    "given",
    [
        {"regex": "a" * MAX_REGEX_CHARS},
        {"grammar": "x" * MAX_GRAMMAR_BYTES},
        {"choice": ["a"] * MAX_CHOICES},
        # as UTF-8, not as escapes
        {"json": {"pad": "é" * (MAX_SCHEMA_BYTES // 4)}},
        {"json_object": True, "whitespace_pattern": "a" * MAX_REGEX_CHARS},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_is_as_large_as_the_limit_is_taken(given: dict[str, Any]) -> None:
    assert StructuredOutputsParams(**given).kind == next(iter(given))


def test_the_deepest_schema_is_taken() -> None:
    schema = nested(MAX_SCHEMA_DEPTH)
    assert StructuredOutputsParams(json=json.dumps(schema)).schema == schema


def test_another_type_is_refused() -> None:
    with pytest.raises(InvalidParams, match="StructuredOutputsParams or an object, got list"):
        SamplingParams(structured_outputs=[])  # type: ignore[arg-type]


def test_a_backend_is_named_as_vllm_names_it_too() -> None:
    named = {name: StructuredOutputsParams(regex="a", backend=name).backend for name in (*BACKENDS, "guidance", None)}
    assert named == {**dict(zip(BACKENDS, BACKENDS, strict=True)), "guidance": "llguidance", None: None}
