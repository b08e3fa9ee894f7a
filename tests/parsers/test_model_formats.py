"""Tool calls as models' own chat templates write them: found, read, told while they come, and enforced."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from albireo.errors import UnsupportedFeature
from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.output_parser import detect_reasoning_parser, detect_tool_call_parser, output_parser
from albireo.parsers.tool_form import read_tools, tool_call_form
from albireo.parsers.tool_formats import TOOL_CALL_PARSERS
from in_turn import in_turn
from parsers.cutting import call, cut, fed, numbered, text
from parsers.model_calls import ARGUMENTS, FORMATS, SCHEMAS, TOOLS, Written
from parsers.test_tool_form import allows
from parsers.test_tool_parsers import check_calls

IDS = [f"{each.name}{idx}" for idx, each in enumerate(FORMATS)]
BY_NAME = {each.name: each for each in FORMATS}


def parsed(name: str, output: str, pieces: Any = None, **options: Any) -> list[Event]:
    made = TOOL_CALL_PARSERS[name](new_id=numbered, **({"schemas": SCHEMAS} | options))  # type: ignore[arg-type]
    return fed(made, [output] if pieces is None else pieces)


def calls_of(events: list[Event]) -> list[tuple[str, Any]]:
    names = [event.name for event in events if isinstance(event, ToolCallStart)]
    arguments = [json.loads(event.delta) for event in events if isinstance(event, ToolCallArguments)]
    assert all(event.is_complete for event in events if isinstance(event, ToolCallEnd))
    return list(zip(names, arguments, strict=True))


@pytest.mark.parametrize("written", FORMATS, ids=IDS)
def test_what_a_template_writes_is_found_and_read(written: Written) -> None:
    assert detect_tool_call_parser(written.template) == written.name
    expected = [("get.time", ARGUMENTS), ("f", {})][: written.num_calls]
    for before, behind in (("", ""), ("Let me see. ", " Done.")):
        if before and written.name == "pythonic":
            continue  # without a mark calls stand at the beginning
        events = parsed(written.name, before + written.text + behind)
        assert calls_of(events) == expected
        # Where nothing ends the calls, blanks behind them are theirs.
        behind = behind.lstrip() if written.name in ("granite", "gigachat3") else behind
        assert "".join(event.text for event in events if isinstance(event, TextDelta)) == before + behind
    chance = random.Random(written.name)
    whole = parsed(written.name, written.text)
    for pieces in (list(written.text), *(cut(written.text, chance) for _ in range(6))):
        assert parsed(written.name, written.text, pieces) == whole


@pytest.mark.parametrize("written", FORMATS, ids=IDS)
def test_what_ends_too_early_or_is_no_call_is_told(written: Written) -> None:
    """Of every beginning: no letter is lost while there is no call, and calls are whole, or said to be cut off."""
    for end in range(0, len(written.text), 3):
        output = written.text[:end]
        events = parsed(written.name, output)
        check_calls(events)
        if not any(isinstance(event, ToolCallStart) for event in events):
            assert events == (text(output) if output else [])
    # A tool that the request does not have.
    events = parsed(written.name, written.text, tool_names=["g"])
    assert not any(isinstance(event, ToolCallStart) for event in events)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == written.text


@pytest.mark.parametrize("written", FORMATS, ids=IDS)
def test_cutting_rubbish_changes_nothing_and_work_stays_linear(written: Written) -> None:
    """Pieces of real calls in any order."""
    chance = random.Random(written.name)
    pieces = [written.text[i : i + 9] for i in range(0, len(written.text), 9)]
    pieces += ["{", "}", "[", ")", ",", "\n", '"', "'", "\\", "f", "é😀", "=", ":", "<", ">", written.text[:60]]
    for _ in range(30):
        output = written.text[: chance.choice((0, 30, 60, 120))] + "".join(chance.choices(pieces, k=8))
        events = parsed(written.name, output)
        assert parsed(written.name, output, list(output)) == events, output
        assert parsed(written.name, output, cut(output, chance)) == events, output
        check_calls(events)
    for piece in (*chance.choices(pieces, k=6), "(", "[", "{", written.text[:40]):
        output = written.text[:70] + piece * (1_500 // len(piece))
        for size in (len(output), 7):
            parser = TOOL_CALL_PARSERS[written.name](new_id=numbered)
            fed(parser, [output[start : start + size] for start in range(0, len(output), size)])
            assert parser.num_scanned < 12 * len(output), (piece, size)


@in_turn(("written", FORMATS), ("vocabulary", ("bundled", "qwen3")))
def test_what_is_enforced_is_what_a_template_writes(written: Written, vocabulary: str) -> None:
    tools = read_tools(TOOLS)
    form = tool_call_form(tools, "required", written.name, template=written.template)
    strict = read_tools([{**tool["function"], "strict": True} for tool in TOOLS])
    free = tool_call_form(strict, "auto", written.name, template=written.template)
    assert allows(form, vocabulary, written.text)
    assert not allows(form, vocabulary, f"So: {written.text}")
    assert not allows(form, vocabulary, written.text.replace("get.time", "get.date"))
    assert not allows(form, vocabulary, written.text.replace("days", "hours"))
    if free is not None:
        assert allows(free, vocabulary, "No call, < just text.")
        assert allows(free, vocabulary, f"So: {written.text}")
        assert not allows(free, vocabulary, f"So: {written.text.replace('days', 'hours')}")
    assert (free is None) == (written.name in ("pythonic", "kimi_k3"))


VALUES: list[tuple[Any, str, Any]] = [
    ({"type": "string"}, "3", "3"),
    ({"type": "string"}, ' "a"\\ ', ' "a"\\ '),
    ({"type": "integer"}, "3", 3),
    ({"type": "number"}, " 2.5e3 ", 2500.0),
    ({"type": "boolean"}, "True", True),
    ({"type": "boolean"}, "false", False),
    ({"type": ["string", "null"]}, "null", None),
    ({"type": ["string", "null"]}, "3", "3"),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "None", None),
    ({"enum": ["1", "2"]}, "1", "1"),
    ({"const": 1}, "1", 1),
    ({"$ref": "#/$defs/list"}, "[1, true]", [1, True]),
    ({"type": "object"}, "{'a': [1, None, \"x\"], 'b': True}", {"a": [1, None, "x"], "b": True}),
    ({"type": "object"}, '{"a": {"b": 1}}', {"a": {"b": 1}}),
    # Wrong, and told as it is.
    ({"type": "integer"}, "three", "three"),
    ({"type": "integer"}, "NaN", "NaN"),
    ({"type": "array"}, "[" * 500, "[" * 500),
    ({"type": "object"}, "{__import__('os')}", "{__import__('os')}"),
    # Nothing is known of it.
    ({}, "7", 7),
    ({}, "seven", "seven"),
    ({}, '"7"', '"7"'),
]


@pytest.mark.parametrize(("schema", "written", "value"), VALUES)
def test_a_schema_says_what_a_value_is(schema: Any, written: str, value: Any) -> None:
    schemas = {"f": {"properties": {"a": schema}, "$defs": {"list": {"type": "array"}}}}
    output = f"<tool_call>f<arg_key>a</arg_key><arg_value>{written}</arg_value></tool_call>"
    assert calls_of(parsed("glm45", output, schemas=schemas)) == [("f", {"a": value})]


def test_strings_go_out_while_they_come_and_line_ends_round_them_do_not() -> None:
    parser = TOOL_CALL_PARSERS["qwen3_coder"](new_id=numbered, schemas=SCHEMAS)  # type: ignore[call-arg]
    assert parser.push("<tool_call>\n<function=get.time>\n<parameter=city>\nOs")[-1] == ToolCallArguments(0, "Os")
    assert parser.push("lo\n") == [ToolCallArguments(0, "lo")]
    assert parser.push("\n</param") == [ToolCallArguments(0, "\\n")]
    assert parser.push("eter>") == [ToolCallArguments(0, '"')]
    assert parser.push("</function>")[-1] == ToolCallEnd(0)
    assert parser.push("</tool_call>") == []


MORE: list[tuple[str, str, list[Event]]] = [
    # Marks that models leave out.
    ("qwen3_coder", "<function=f>\n</function>", call(0, "f", "{}")),
    ("qwen3_coder", "<tool_call><function=f></tool_call> ok", [*call(0, "f", "{}"), *text(" ok")]),
    ("qwen3_coder", "<tool_call>f</tool_call>", text("<tool_call>f</tool_call>")),
    ("qwen3_coder", "<function=f><parameter=a>x", call(0, "f", '{"a": ', is_complete=False)),
    (
        "qwen3_coder",
        "<function=f><parameter=a>\n1\n</parameter>!",
        [*call(0, "f", '{"a": 1', is_complete=False), *text("!")],
    ),
    ("deepseek_v31", "<｜tool▁calls▁begin｜>so", text("<｜tool▁calls▁begin｜>so")),
    (
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>f<|tool_call_argument_begin|>{}",
        call(0, "f", "{}", "f"),
    ),
    (
        "kimi_k2",
        "So. <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|> Done.",
        [*text("So. "), *call(0, "f", "{}", "functions.f:0"), *text("Done.")],
    ),
    ("jamba", '<tool_calls>\n{"name": "f"}\n{"name": "g"}\n</tool_calls>', [*call(0, "f", "{}"), *call(1, "g", "{}")]),
    ("phi4_mini_json", 'functools[{"name": "f"}]', call(0, "f", "{}")),
    ("cohere_command3", "<|START_RESPONSE|>Hello.<|END_RESPONSE|>", text("Hello.")),
    ("cohere_command3", "<|START_TEXT|>Hello.<|END_TEXT|>", text("Hello.")),
    ("pythonic", "[1, 2]", text("[1, 2]")),
    ("pythonic", "[f(1)]", text("[f(1)]")),
    (
        "pythonic",
        "<|python_start|>[f(a='it\\'s', b=-1, c=(1, 2))]<|python_end|>",
        call(0, "f", '{"a": "it\'s", "b": -1, "c": [1, 2]}'),
    ),
    (
        "lfm2",
        "<|tool_call_start|>[f(a='it's \"so\", yes', b='')]<|tool_call_end|>",
        call(0, "f", '{"a": "it\'s \\"so\\", yes", "b": ""}'),
    ),
    (
        "lfm2",
        '<|tool_call_start|>[f(a="""x "y", z\n""", b="\\"")]<|tool_call_end|>',
        call(0, "f", '{"a": "x \\"y\\", z\\n", "b": "\\""}'),
    ),
    (
        "lfm2",
        "<|tool_call_start|>[f(a={'b': 'c', 'd': [\"e\"]})]<|tool_call_end|>",
        call(0, "f", '{"a": {"b": "c", "d": ["e"]}}'),
    ),
    ("pythonic", "[f(a=[1)]", text("[f(a=[1)]")),
    ("pythonic", "[f(a=1, b=g())]", [*call(0, "f", '{"a": 1', is_complete=False), *text(")]")]),
    ("lfm2", '<|tool_call_start|>[f(a="x\ny")]<|tool_call_end|>', call(0, "f", '{"a": "x\\ny"}')),
    (
        "gemma4",
        '<|tool_call>call:f{a:{b:[<|"|>c:d{<|"|>,True]}}<tool_call|>',
        call(0, "f", '{"a": {"b":["c:d{",true]}}'),
    ),
    ("gemma4", "<|tool_call>call:f{a:b}<tool_call|>", text("<|tool_call>call:f{a:b}<tool_call|>")),
]


@pytest.mark.parametrize(("name", "output", "expected"), MORE)
def test_what_models_write_besides(name: str, output: str, expected: list[Event]) -> None:
    assert parsed(name, output) == expected
    assert parsed(name, output, list(output)) == expected


LIMITED: list[tuple[Any, str, str]] = [
    ({"enum": ["a", "b"]}, "a", "c"),
    ({"type": "string", "pattern": "^[0-9]+$"}, "12", "x"),
    ({"type": "string", "pattern": "b"}, "abc", "ac"),
    ({"type": "string", "minLength": 2, "maxLength": 3}, "a\n", "a"),
    ({"type": "integer", "minimum": 5}, "7", "4"),
    ({"$ref": "#/$defs/list"}, "[true]", "true"),
]


@pytest.mark.parametrize(("schema", "right", "wrong"), LIMITED)
def test_a_string_without_quotes_keeps_to_its_schema(schema: Any, right: str, wrong: str) -> None:
    parameters = {"properties": {"a": schema}, "required": ["a"], "$defs": {"list": {"type": "array"}}}
    form = tool_call_form(read_tools([{"name": "f", "parameters": parameters}]), "required", "qwen3_coder")
    for value, fits in ((right, True), (wrong, False)):
        output = f"<tool_call>\n<function=f>\n<parameter=a>\n{value}\n</parameter>\n</function>\n</tool_call>"
        assert allows(form, "bundled", output) is fits


@pytest.mark.parametrize("name", ["qwen3_coder", "lfm2", "gemma4"])
def test_arguments_that_need_not_be_there_may_be_left_out(name: str) -> None:
    schema = {"properties": {each: {"type": "integer"} for each in "abc"}, "required": ["b"]}
    some = {"properties": {each: {"type": "integer"} for each in "abc"}}
    for parameters, wanted, unwanted in (
        (schema, ("b", "ba", "bc", "bac"), ("a", "ac")),
        (some, ("", "a", "bc", "abc"), ("ca",)),
    ):
        form = tool_call_form(read_tools([{"name": "f", "parameters": parameters}]), "required", name)
        for keys in (*wanted, *unwanted):
            if name == "qwen3_coder":  # in the schema's order
                inner = "".join(f"<parameter={key}>\n1\n</parameter>\n" for key in sorted(keys))
                output = f"<tool_call>\n<function=f>\n{inner}</function>\n</tool_call>"
                is_right = keys in wanted or keys == "ca"
            elif name == "lfm2":
                output = f"<|tool_call_start|>[f({', '.join(f'{key}=1' for key in keys)})]<|tool_call_end|>"
                is_right = keys in wanted
            else:
                output = f"<|tool_call>call:f{{{','.join(f'{key}:1' for key in keys)}}}<tool_call|>"
                is_right = keys in wanted
            assert allows(form, "bundled", output) is is_right, (parameters, keys)


def test_any_arguments_where_a_schema_names_none() -> None:
    tools = read_tools([{"name": "f"}])
    for name, output in (
        ("qwen3_coder", "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n</tool_call>"),
        (
            "deepseek_v32",
            '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="a" string="true">x'
            "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        ),
        ("lfm2", '<|tool_call_start|>[f(a="x")]<|tool_call_end|>'),
        ("gemma4", '<|tool_call>call:f{a:<|"|>x<|"|>}<tool_call|>'),
    ):
        assert allows(tool_call_form(tools, "required", name), "bundled", output), name
        assert calls_of(parsed(name, output, schemas={})) == [("f", {"a": "x"})]


def test_what_a_format_cannot_be_held_to_is_refused() -> None:
    both = {"properties": {"a": {"type": "string", "pattern": "^a", "maxLength": 3}}}
    with pytest.raises(UnsupportedFeature, match=r"f\.a has a pattern and a length"):
        tool_call_form(read_tools([{"name": "f", "parameters": both}]), "required", "glm45")
    within = {"$defs": {"t": {"properties": {"t": {"$ref": "#/$defs/t"}}}}, "properties": {"t": {"$ref": "#/$defs/t"}}}
    with pytest.raises(UnsupportedFeature, match="in themselves"):
        tool_call_form(read_tools([{"name": "f", "parameters": within}]), "required", "gemma4")


@pytest.mark.parametrize(
    ("template", "reasoning", "calls"),
    [
        ("<|channel>thought\n<channel|> <|tool_call>call:", "gemma4", "gemma4"),
        ("<seed:think>", "seed_oss", None),
        ("<|START_THINKING|><|START_ACTION|>", "cohere_command3", "cohere_command3"),
        ("{{ '</think>' }}<|tool_calls_section_begin|>", "think", "kimi_k2"),
        ("]<]minimax[>[<tool_call> </mm:think>", "minimax_m3", "minimax_m3"),
        ("<|open|> <|close|> <|sep|>", "kimi_k3", "kimi_k3"),
        ("<|header_start|>{{ '\"parameters\"' }}", None, "llama3_json"),
        ("List of tools: [", None, "lfm2"),
    ],
)
def test_what_else_is_found_in_templates(template: str, reasoning: str | None, calls: str | None) -> None:
    assert (detect_reasoning_parser(template), detect_tool_call_parser(template)) == (reasoning, calls)


def test_calls_come_behind_thoughts() -> None:
    written = BY_NAME["gemma4"]
    parser = output_parser(tool_call_parser="gemma4", reasoning_parser="gemma4", new_id=numbered, schemas=SCHEMAS)
    events = fed(parser, [f"<|channel>thought\nHm <|tool_call>.<channel|>{written.text}"])
    assert calls_of(events[1:]) == [("get.time", ARGUMENTS), ("f", {})]


def test_marks_round_an_answer_are_none_of_it() -> None:
    for calls in ("cohere_command3", None):
        parser = output_parser(
            tool_call_parser=calls,
            reasoning_parser="cohere_command3",
            new_id=numbered,
            left_out=("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
        )
        output = "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>So < be it.<|END_RESPONSE|>"
        assert fed(parser, list(output)) == [ReasoningDelta("Hm."), TextDelta("So < be it.")]


REPEATS = {"anyOf": [{"$ref": "#/$defs/A"}] * 10}
ODD: list[Any] = [
    {"properties": {"x": True}},
    {"properties": {"x": False}},
    {"properties": {"x": None}},
    {"properties": {"x": {"anyOf": [True, {"type": "string"}]}}},
    {"properties": {"x": {"anyOf": 5}}},
    {"properties": {"x": {"enum": 5}}},
    {"properties": {"x": {"type": "string", "pattern": 5}}},
    {"properties": {"x": {"type": "object", "properties": {"a": True}}}},
    {"properties": {"x": {"type": "array", "items": True}}},
    {"properties": {"x": {"$ref": "#/nothing"}}},
    {"properties": {"x": {"type": 5}}, "required": 5},
    # what refers to itself several times, or to many that refer to many, is not gone through
    {"properties": {"x": {"$ref": "#/$defs/A"}}, "$defs": {"A": REPEATS}},
    {
        "properties": {"x": {"$ref": "#/$defs/A0"}},
        "$defs": {
            f"A{i}": {"properties": {f"p{j}": {"$ref": f"#/$defs/A{i + 1}"} for j in range(60)}} for i in range(6)
        },
    },
]


@pytest.mark.parametrize("name", TOOL_CALL_PARSERS)
def test_any_schema_has_a_form_or_is_refused(name: str) -> None:
    for schema in ODD:
        tools = read_tools([{"name": "f", "parameters": {"type": "object", **schema}, "strict": True}])
        for choice in ("required", "auto"):
            try:
                tool_call_form(tools, choice, name)
            except UnsupportedFeature as error:
                assert "f" in str(error) and "leave" in str(error)
