"""What tool_choice enforces is what the model's own parser reads back: by random walks through the grammar."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from albireo.errors import InvalidParams, UnsupportedFeature
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.output_parser import output_parser
from albireo.parsers.reasoning import REASONING_PARSERS, THINK, ReasoningTags
from albireo.parsers.tool_form import after_reasoning, allowed_tools, read_tools, tool_call_form
from albireo.structured_params import StructuredOutputsParams
from in_turn import in_turn
from parsers.cutting import fed, numbered
from structured.vocabularies import allowed_ids, compiler, tokenizer

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Oslo", 'Zoë\'s "farm"']},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}},
    {"type": "function", "name": "stop", "parameters": {"type": "object", "additionalProperties": False}},
]
ARGS_TEMPLATE, ID_TEMPLATE = "[TOOL_CALLS]f[ARGS]", "[TOOL_CALLS]f[CALL_ID]x[ARGS]"
FORMATS = [
    ("hermes", "qwen3", ""),
    ("hermes", "bundled", ""),
    ("llama3_json", "bundled", ""),
    ("mistral", "mistral-v3", ""),
    ("mistral", "bundled", ARGS_TEMPLATE),
    ("mistral", "bundled", ID_TEMPLATE),
]


def walked(form: StructuredOutputsParams | None, name: str, seed: int, num: int = 400) -> str | None:
    """A random text of the form; None when it does not end in num tokens."""
    assert form is not None
    known, chance = tokenizer(name), random.Random(seed)
    matcher = compiler(name).compile(form).matcher()
    output: list[int] = []
    for _ in range(num):
        ids = allowed_ids(matcher, output)
        ends = set(ids) & set(matcher.eos_token_ids)
        if ends and (len(ids) == len(ends) or chance.random() < 0.5):
            pieces = [known.pieces.piece(token_id) for token_id in output]
            return b"".join(piece.data for piece in pieces if piece is not None).decode()
        output.append(chance.choice([token_id for token_id in ids if token_id not in ends]))
    return None


def calls(events: list[Event]) -> list[tuple[str, Any]]:
    names = [event.name for event in events if isinstance(event, ToolCallStart)]
    arguments = [json.loads(event.delta) for event in events if isinstance(event, ToolCallArguments)]
    assert all(event.is_complete for event in events if isinstance(event, ToolCallEnd))
    return list(zip(names, arguments, strict=True))


@in_turn(
    ("parser, name, template", FORMATS),
    (
        "choice, is_parallel",
        [("required", True), ("required", False), ({"type": "function", "function": {"name": "get_weather"}}, True)],
    ),
)
def test_a_required_call_is_read_back_and_fits_its_schema(
    parser: str, name: str, template: str, choice: Any, is_parallel: bool
) -> None:
    form = tool_call_form(read_tools(TOOLS), choice, parser, template=template, is_parallel=is_parallel)
    counts = []
    for seed in range(8):
        output = walked(form, name, seed)
        if output is None:
            continue
        events = fed(output_parser(tool_call_parser=parser, reasoning_parser=None, new_id=numbered), [output])
        found = calls(events)
        counts.append(len(found))
        assert found and not any(isinstance(event, TextDelta) for event in events), output
        for function, arguments in found:
            if function == "get_weather":
                jsonschema.validate(arguments, WEATHER)
            else:
                assert (function, arguments) == ("stop", {}) and choice == "required"
    assert len(counts) >= 3
    assert max(counts) > 1 if choice == "required" and is_parallel else set(counts) == {1}


def allows(form: StructuredOutputsParams | None, name: str, text: str) -> bool:
    assert form is not None
    matcher = compiler(name).compile(form).matcher()
    output: list[int] = []
    for token_id in tokenizer(name).encode(text, add_special_tokens=False):
        if token_id not in allowed_ids(matcher, output):
            return False
        output.append(token_id)
    return bool(set(allowed_ids(matcher, output)) & set(matcher.eos_token_ids))


def test_auto_leaves_text_free_and_keeps_strict_calls_in_form() -> None:
    form = tool_call_form(read_tools(TOOLS), "auto", "hermes")
    right = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    for name in ("qwen3", "bundled"):
        assert allows(form, name, "No call, < just text.")
        assert allows(form, name, f"Let me see. {right}")
        assert allows(form, name, right.replace("get_weather", "stop").replace('"city": "Oslo"', ""))
        assert not allows(form, name, right.replace("Oslo", "Rome"))
        assert not allows(form, name, right.replace("get_weather", "get_time"))
    mistral = tool_call_form(read_tools(TOOLS), "auto", "mistral")
    for text, is_right in (
        ("Just text.", True),
        (f"So [TOOL_CALLS][{right[12:-13]}]", True),
        ("[TOOL_CALLS][5]", False),
    ):
        # Its encoder begins a text with a space.
        assert allows(mistral, "mistral-v3", text) is is_right, text


def test_a_model_may_think_before_text_in_which_calls_are_kept_in_form() -> None:
    """With its own tokens: marks of thoughts are no text in most vocabularies."""
    right = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    for tags in (THINK, ReasoningTags("<|vision_start|>", "<|vision_end|>", answer="<|box_start|>")):
        thoughts = f"Hm, get_weather.\n{tags.end}\n\n"
        form = tool_call_form(read_tools(TOOLS), "auto", "hermes", reasoning=tags)
        opened = tool_call_form(read_tools(TOOLS), "auto", "hermes", reasoning=tags, is_thinking=True)
        for text, is_right in (
            ("Just text.", True),
            (f"{tags.answer}Just text.", True),
            (f"So: {right}", True),
            (f"So: {right.replace('Oslo', 'Rome')}", False),
        ):
            assert allows(form, "qwen3", text) is is_right
            assert allows(form, "qwen3", f"{tags.begin}\n{thoughts}{text}") is is_right
            assert allows(opened, "qwen3", f"{thoughts}{text}") is is_right
        assert not allows(opened, "qwen3", "No end.")


def test_auto_among_some_of_the_tools_calls_no_other() -> None:
    tools = read_tools(TOOLS)
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "stop"}]}
    allowed, mode = allowed_tools(tools, choice)
    assert ([tool.name for tool in allowed], mode) == (["stop"], "auto")
    form = tool_call_form(allowed, mode, "hermes", is_restricted=True)
    call = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    assert allows(form, "qwen3", "No call, < just text.") and allows(form, "qwen3", f"Well. {call}")
    assert not allows(form, "qwen3", call.replace("stop", "get_weather"))
    assert allowed_tools(tools, "required") == (tools, "required")


@pytest.mark.parametrize(
    ("tools", "choice", "parser"),
    [(TOOLS, "none", "hermes"), (TOOLS[1:], "auto", "hermes"), (TOOLS, "auto", "llama3_json"), ([], "auto", "hermes")],
)
def test_where_nothing_has_to_be_enforced_there_is_no_form(tools: Any, choice: str, parser: str) -> None:
    assert tool_call_form(read_tools(tools), choice, parser) is None


def test_a_model_may_think_before_it_calls() -> None:
    form = tool_call_form(read_tools(TOOLS), "required", "hermes", reasoning=THINK)
    right = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
    for name in ("qwen3", "bundled"):
        assert allows(form, name, right)
        assert allows(form, name, f"<think>\nHm.\n</think>\n\n{right}")
        assert not allows(form, name, f"<think>\nHm.\n</think>\n\nSo: {right}")
    opened = tool_call_form(read_tools(TOOLS), "required", "hermes", reasoning=THINK, is_thinking=True)
    assert allows(opened, "qwen3", f"Hm.\n</think>\n\n{right}") and not allows(opened, "qwen3", right)


FORMS: list[tuple[dict[str, Any], str, str]] = [
    ({"json": WEATHER}, '{"city": "Oslo"}', "{}"),
    ({"json_object": True, "disable_any_whitespace": True}, '{"a":1}', '{"a": 1}'),
    ({"regex": r"\d+"}, "12", "x"),
    ({"choice": ["yes", "no"]}, "no", "maybe"),
    ({"structural_tag": {"format": {"type": "const_string", "value": "ab"}}}, "ab", "a"),
]


@pytest.mark.parametrize(("given", "right", "wrong"), FORMS)
def test_any_form_but_a_grammar_comes_after_reasoning(given: dict[str, Any], right: str, wrong: str) -> None:
    form = after_reasoning(StructuredOutputsParams(**given), REASONING_PARSERS["deepseek_r1"], False)
    for name in ("qwen3", "bundled"):
        assert allows(form, name, f"So {wrong}?</think>\n\n{right}")
        assert not allows(form, name, f"So {wrong}?</think>\n\n{wrong}")
    parsed = fed(output_parser(tool_call_parser=None, reasoning_parser="deepseek_r1"), [f"So?</think>\n\n{right}"])
    assert parsed == [ReasoningDelta("So?"), TextDelta(right)]


def test_a_grammar_does_not_and_without_tags_nothing_changes() -> None:
    grammar = StructuredOutputsParams(grammar='start: "a"')
    with pytest.raises(UnsupportedFeature, match="thinks first"):
        after_reasoning(grammar, THINK, False)
    assert after_reasoning(grammar, None, False) is grammar


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (["f"], r"tools\[0\] must be"),
        ([{"type": "retrieval"}], r"tools\[0\] must be"),
        ([{"function": {"name": "a b"}}], r"tools\[0\]: name='a b' must be"),
        ([TOOLS[1], TOOLS[1]], r"tools\[1\]: there is another"),
        ([{"function": {"name": "f", "parameters": [1]}}], r"tools\[0\]: parameters must be"),
    ],
)
def test_tools_that_are_none_are_refused(tools: Any, message: str) -> None:
    with pytest.raises(InvalidParams, match=message):
        read_tools(tools)


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({}, InvalidParams, 'tool_choice={} names no function; write {"type": "function"'),
        ({"type": "function", "function": None}, InvalidParams, "names no function"),
        ({"type": "function", "function": {"name": "g"}}, InvalidParams, "'g', which is not among"),
        ({"type": "custom"}, UnsupportedFeature, "is not none, auto"),
        ("sometimes", UnsupportedFeature, "is not none, auto"),
    ],
)
def test_a_choice_that_is_none_is_refused(choice: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        tool_call_form(read_tools(TOOLS), choice, "hermes")
    with pytest.raises(InvalidParams, match="there are no tools"):
        tool_call_form([], "required", "hermes")
    with pytest.raises(UnsupportedFeature, match="'xml'"):
        tool_call_form(read_tools(TOOLS), "required", "xml")
