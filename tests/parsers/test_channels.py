"""Kimi K3's channels and MiniMax M3's nested elements: what the formats of others do not have."""

from __future__ import annotations

import json
from typing import Any

import pytest

from albireo.errors import UnsupportedFeature
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallEnd, ToolCallStart, joined
from albireo.parsers.output_parser import output_parser
from albireo.parsers.reasoning import REASONING_PARSERS
from albireo.parsers.tool_form import read_tools, tool_call_form
from parsers.cutting import fed, numbered
from parsers.model_calls import M3
from parsers.test_model_formats import calls_of, parsed
from parsers.test_tool_form import allows

K3_CALL = (
    '<|open|>tools<|sep|><|open|>call tool="f" index="1"<|sep|><|open|>argument key="a" type="{kind}"<|sep|>{value}'
    "<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>"
)


@pytest.mark.parametrize("has_tools", [True, False])
@pytest.mark.parametrize("thinks", [True, False])
def test_an_answer_of_kimi_k3_is_what_stands_in_its_channel(has_tools: bool, thinks: bool) -> None:
    """The prompt opens the first of its channels."""
    prompt = f"<|open|>{'think' if thinks else 'response'}<|sep|>"
    output = "Hm <b>.<|close|>think<|sep|><|open|>response<|sep|>" if thinks else ""
    output += "So < be it.<|close|>response<|sep|><|close|>message<|sep|>"
    expected: list[Event] = [ReasoningDelta("Hm <b>.")] if thinks else []
    for pieces in ([output], list(output)):
        made = output_parser(
            tool_call_parser="kimi_k3" if has_tools else None,
            reasoning_parser="kimi_k3",
            prompt=prompt,
            left_out=REASONING_PARSERS["kimi_k3"].left_out,
        )
        assert joined(fed(made, pieces)) == [*expected, TextDelta("So < be it.")]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "3", "3"),
        ("string", '{"x": 1}\n', '{"x": 1}\n'),
        ("number", "3", 3),
        ("object", '{"x": 1}', {"x": 1}),
        ("null", "null", None),
        ("boolean", "true", True),
        ("array", "[]", []),
    ],
)
def test_kimi_k3_says_what_a_value_is(kind: str, value: str, expected: Any) -> None:
    """Where the schema leaves it open."""
    output = K3_CALL.format(kind=kind, value=value)
    assert calls_of(parsed("kimi_k3", output, schemas={})) == [("f", {"a": expected})]


@pytest.mark.parametrize("index", ['index=""', 'index="x"', "", 'index="1" more="2"', 'index="1234567"'])
def test_what_is_no_head_of_a_call_ends_it(index: str) -> None:
    output = K3_CALL.format(kind="string", value="x").replace('index="1"', index)
    for pieces in ([output], list(output)):
        events = parsed("kimi_k3", output, pieces)
        assert [event for event in events if isinstance(event, ToolCallEnd)] == [ToolCallEnd(0, False)]


def test_kimi_k3_closes_its_answer_before_a_call_that_is_required() -> None:
    parameters = {"properties": {"a": {"type": ["integer", "string"]}}, "required": ["a"]}
    form = tool_call_form(read_tools([{"name": "f", "parameters": parameters}]), "required", "kimi_k3")
    for kind, value, fits in (
        ("number", "3", True),
        ("string", "x", True),
        ("number", "x", False),
        ("null", "null", False),
    ):
        output = K3_CALL.format(kind=kind, value=value)
        assert allows(form, "bundled", output) is fits
        assert allows(form, "bundled", f"<|close|>response<|sep|>{output}") is fits
    limited = {"properties": {"a": {"type": "string", "maxLength": 2}}, "required": ["a"]}
    form = tool_call_form(read_tools([{"name": "f", "parameters": limited}]), "required", "kimi_k3")
    assert allows(form, "bundled", K3_CALL.format(kind="string", value="ab"))
    assert not allows(form, "bundled", K3_CALL.format(kind="string", value="abc"))
    behind_thoughts = tool_call_form(
        read_tools([{"name": "f", "parameters": limited}]),
        "required",
        "kimi_k3",
        reasoning=REASONING_PARSERS["kimi_k3"],
        is_thinking=True,
    )
    thought = "Hm.<|close|>think<|sep|><|open|>response<|sep|><|close|>response<|sep|>"
    assert allows(behind_thoughts, "bundled", thought + K3_CALL.format(kind="string", value="ab"))


def m3(inner: str) -> str:
    """A call of f; `{` and `}` stand for what begins and ends a mark."""
    marks = inner.replace("{/", f"{M3}</").replace("{", f"{M3}<").replace("}", ">")
    return f'{M3}<tool_call>\n{M3}<invoke name="f">{marks}{M3}</invoke>\n{M3}</tool_call>'


LIST = {"type": "array", "items": {"type": "string"}}
TREE = {
    "properties": {"a": {"$ref": "#/$defs/tree"}},
    "$defs": {"tree": {"type": "object", "properties": {"a": {"$ref": "#/$defs/tree"}, "n": {"type": "integer"}}}},
}


@pytest.mark.parametrize(
    ("schema", "inner", "expected"),
    [
        ({"properties": {"a": LIST}}, "{a}{item}1{/item}{item}x{/item}{/a}", {"a": ["1", "x"]}),
        ({"properties": {"a": LIST}}, "{a}{/a}", {"a": []}),
        ({"properties": {"a": {"anyOf": [LIST, {"type": "null"}]}}}, "{a}{item}1{/item}{/a}", {"a": ["1"]}),
        ({"properties": {"a": {"type": "object"}}}, "{a}{/a}", {"a": {}}),
        ({"properties": {"a": {"type": "object"}}}, "{a}{b}1{/b}{c}x{/c}{/a}", {"a": {"b": 1, "c": "x"}}),
        (
            {"properties": {"a": {"additionalProperties": {"type": "string"}}}},
            "{a}{b}1{/b}{b}2{/b}{/a}",
            {"a": {"b": ["1", "2"]}},
        ),
        (TREE, "{a}\n{a}{n}1{/n}{/a}\n{n}2{/n}{/a}", {"a": {"a": {"n": 1}, "n": 2}}),
        ({}, "{a}{item}1{/item}{item}{b}true{/b}{/item}{/a}\n{c}d{/c}", {"a": [1, {"b": True}], "c": "d"}),
        ({"properties": {"a": {"type": "string"}}}, "{a}<b>1</b>\n{/a}", {"a": "<b>1</b>\n"}),
        ({"properties": {"a": {"type": "boolean"}}}, "{a}true{/a}", {"a": True}),
        ({}, "", {}),
    ],
    ids=str,
)
def test_elements_of_minimax_m3_become_what_the_schema_says(schema: Any, inner: str, expected: Any) -> None:
    output = m3(inner)
    for pieces in ([output], list(output)):
        assert calls_of(parsed("minimax_m3", output, pieces, schemas={"f": schema})) == [("f", expected)]
    if schema is not TREE:
        form = tool_call_form(read_tools([{"name": "f", "parameters": schema}]), "required", "minimax_m3")
        assert allows(form, "bundled", output) is ("\n" not in inner or "string" in json.dumps(schema))


def test_minimax_m3_is_held_to_what_lies_in_a_list() -> None:
    member = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 2}}, "required": ["n"]}
    parameters = {"properties": {"a": {"type": "array", "items": member}, "b": {"enum": ["x", 7]}}, "required": ["a"]}
    form = tool_call_form(read_tools([{"name": "f", "parameters": parameters}]), "required", "minimax_m3")
    for inner, fits in (
        ("{a}{item}{n}2{/n}{/item}{item}{n}3{/n}{/item}{/a}{b}7{/b}", True),
        ("{a}{/a}", True),
        ("{a}{item}{n}1{/n}{/item}{/a}", False),
        ("{a}{item}{/item}{/a}", False),
        ("{a}2{/a}", False),
        ("{a}{/a}{b}y{/b}", False),
        ("{b}x{/b}", False),
    ):
        assert allows(form, "bundled", m3(inner)) is fits, inner


@pytest.mark.parametrize("inner", ["{a}{b}1{/a}", "{a}{}1{/}{/a}", "{a}1", "{a", "{a}" * 200, "{a}]<]minimax[>[!{/a}"])
def test_elements_that_are_none_end_the_call(inner: str) -> None:
    output = m3(inner).removesuffix(f"{M3}</invoke>\n{M3}</tool_call>")
    events = parsed("minimax_m3", output, schemas={"f": {}})
    assert isinstance(events[0], ToolCallStart) and ToolCallEnd(0, False) in events
    assert joined(parsed("minimax_m3", output, list(output), schemas={"f": {}})) == joined(events)


def test_minimax_m3_may_begin_with_the_end_of_thoughts() -> None:
    """Where it does not think, and nobody forbade it."""
    for calls in ("minimax_m3", None):
        made = output_parser(
            tool_call_parser=calls,
            reasoning_parser="minimax_m3",
            new_id=numbered,
            left_out=REASONING_PARSERS["minimax_m3"].left_out,
        )
        assert joined(fed(made, list("</mm:think>So be it."))) == [TextDelta("So be it.")]


def test_what_lies_too_deep_is_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="in themselves"):
        tool_call_form(read_tools([{"name": "f", "parameters": TREE}]), "required", "minimax_m3")
