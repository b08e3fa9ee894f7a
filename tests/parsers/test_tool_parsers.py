"""Tool calls in the formats of models: what is a call, what stays text, and that cutting and malice change nothing."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from albireo.parsers.events import Event, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart
from albireo.parsers.output_parser import TOOL_CALL_PARSERS
from parsers.cutting import call, cut, fed, numbered, text

#: Others are in test_model_formats.py.
NAMES = ("hermes", "llama3_json", "mistral", "openai")

ARGS = '{"city": "Bad \\"Zoë\\" 😀", "n": [1, -2.5e3, {"x": null}]}'
A, B = f'{{"name": "get.time", "arguments": {ARGS}}}', '{"name": "f", "arguments": {}}'
PARAM_A, PARAM_B = A.replace('"arguments"', '"parameters"'), B.replace('"arguments"', '"parameters"')


def parsed(name: str, output: str, **options: Any) -> list[Event]:
    return fed(TOOL_CALL_PARSERS[name](new_id=numbered, **options), [output])


CASES: list[tuple[str, str, list[Event]]] = [
    # -- hermes
    ("hermes", "", []),
    ("hermes", " \n", text(" \n")),
    ("hermes", "Just < text <tool_cal", text("Just < text <tool_cal")),
    ("hermes", f"<tool_call>\n{A}\n</tool_call>", call(0, "get.time", ARGS)),
    ("hermes", f"\n\n<tool_call>{A}</tool_call>\n", call(0, "get.time", ARGS)),
    (
        "hermes",
        f"Let me see.\n<tool_call>\n{A}\n</tool_call>\n<tool_call>{B}</tool_call> Done.",
        [*text("Let me see.\n"), *call(0, "get.time", ARGS), *call(1, "f", "{}"), *text(" Done.")],
    ),
    ("hermes", f"<tool_call>{A}<tool_call>{B}", [*call(0, "get.time", ARGS), *call(1, "f", "{}")]),
    ("hermes", f"<tool_call>{A}</tool_c", call(0, "get.time", ARGS)),
    ("hermes", f"<tool_call>{A} and so", [*call(0, "get.time", ARGS), *text("and so")]),
    ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', call(0, "f", '{"a": 1}')),
    ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>', call(0, "f", '{"a": 1}')),
    ("hermes", '<tool_call>{"name": "f"}</tool_call>', call(0, "f", "{}")),
    ("hermes", '<tool_call>{"name": "f", "arguments": null, "more": [1]}</tool_call>', call(0, "f", "{}")),
    ("hermes", '<tool_call>{"id": "x1", "name": "f", "arguments": {}}</tool_call>', call(0, "f", "{}", "x1")),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": "<tool_call>"}}', call(0, "f", '{"a": "<tool_call>"}')),
    # The output ends, or goes wrong, inside the arguments.
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": [1, ', call(0, "f", '{"a": [1, ', is_complete=False)),
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": }}</tool_call>',
        [*call(0, "f", '{"a": ', is_complete=False), *text("}}</tool_call>")],
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": {"a": 1}', call(0, "f", '{"a": 1}', is_complete=False)),
    # No calls.
    ("hermes", "<tool_call>", text("<tool_call>")),
    ("hermes", "<tool_call>  call it</tool_call>", text("<tool_call>  call it</tool_call>")),
    ("hermes", '<tool_call>{"name": "f", "arg', text('<tool_call>{"name": "f", "arg')),
    ("hermes", '<tool_call>{"name": 5, "arguments": {}}', text('<tool_call>{"name": 5, "arguments": {}}')),
    ("hermes", '<tool_call>{"name": "a b"}</tool_call>', text('<tool_call>{"name": "a b"}</tool_call>')),
    ("hermes", '<tool_call>{"arguments": {}}', text('<tool_call>{"arguments": {}}')),
    ("hermes", '<tool_call>{"name": "f", "arguments": [1]}', text('<tool_call>{"name": "f", "arguments": [1]}')),
    ("hermes", '<tool_call>{"name": "f", "arguments": "x"}', text('<tool_call>{"name": "f", "arguments": "x"}')),
    ("hermes", "<tool_call>{}</tool_call>", text("<tool_call>{}</tool_call>")),
    ("hermes", f"<tool_call><tool_call>{B}", [*text("<tool_call>"), *call(0, "f", "{}")]),
    # -- llama3_json
    ("llama3_json", PARAM_A, call(0, "get.time", ARGS)),
    ("llama3_json", f" \n{PARAM_A}; {PARAM_B}\n", [*call(0, "get.time", ARGS), *call(1, "f", "{}")]),
    ("llama3_json", f"<|python_tag|>{PARAM_A}", call(0, "get.time", ARGS)),
    (
        "llama3_json",
        f"I call <|python_tag|>{A};<|python_tag|>{B}",
        [*text("I call "), *call(0, "get.time", ARGS), *call(1, "f", "{}")],
    ),
    ("llama3_json", '{"type": "function", "name": "f", "parameters": {"a": 1}}', call(0, "f", '{"a": 1}')),
    ("llama3_json", "Hello", text("Hello")),
    ("llama3_json", '{"answer": 42}', text('{"answer": 42}')),
    ("llama3_json", '{"name": "Bob", "age": 5}', text('{"name": "Bob", "age": 5}')),
    ("llama3_json", "{ no", text("{ no")),
    ("llama3_json", f"Text, then {PARAM_A}", text(f"Text, then {PARAM_A}")),
    ("llama3_json", "<|python_tag|>print(1)", text("<|python_tag|>print(1)")),
    ("llama3_json", f"{PARAM_B}; more", [*call(0, "f", "{}"), *text("; more")]),
    ("llama3_json", f"{PARAM_B}; <|pyth", [*call(0, "f", "{}"), *text("; <|pyth")]),
    ("llama3_json", f"{PARAM_B} more", [*call(0, "f", "{}"), *text("more")]),
    # -- mistral
    ("mistral", f"[TOOL_CALLS][{A}, {B}]", [*call(0, "get.time", ARGS), *call(1, "f", "{}")]),
    ("mistral", f"Hm [TOOL_CALLS] [ {B} ] ok", [*text("Hm "), *call(0, "f", "{}"), *text(" ok")]),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "f", "arguments": {}, "id": "abc"}]',
        call(0, "f", "{}"),
    ),
    ("mistral", f"[TOOL_CALLS]{B}", call(0, "f", "{}")),
    ("mistral", f"[TOOL_CALLS][{B}, 5]", [*call(0, "f", "{}"), *text(", 5]")]),
    (
        "mistral",
        f"[TOOL_CALLS]get.time[ARGS]{ARGS}[TOOL_CALLS]f[CALL_ID]Abc123xyz[ARGS] {{}}",
        [*call(0, "get.time", ARGS), *call(1, "f", "{}", "Abc123xyz")],
    ),
    ("mistral", "[TOOL_CALLS]f{}", call(0, "f", "{}")),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a"', call(0, "f", '{"a"', is_complete=False)),
    ("mistral", '[TOOL_CALLS]f[ARGS]{"a"!', [*call(0, "f", '{"a"', is_complete=False), *text("!")]),
    ("mistral", "[TOOL_CALLS]f[ARGS]5", text("[TOOL_CALLS]f[ARGS]5")),
    ("mistral", "[TOOL_CALLS]f[ARG", text("[TOOL_CALLS]f[ARG")),
    ("mistral", "[TOOL_CALLS]f[CALL_ID]x y", text("[TOOL_CALLS]f[CALL_ID]x y")),
    ("mistral", "[TOOL_CALLS][]", text("[TOOL_CALLS][]")),
    ("mistral", "[TOOL_CALLS]" + "f" * 300 + "[ARGS]{}", text("[TOOL_CALLS]" + "f" * 300 + "[ARGS]{}")),
    ("mistral", "[TOOL_CALLS]", text("[TOOL_CALLS]")),
    ("mistral", "[TOOL_CALLS] what?", text("[TOOL_CALLS] what?")),
]


@pytest.mark.parametrize(("name", "output", "expected"), CASES, ids=range(len(CASES)))
def test_what_an_output_is(name: str, output: str, expected: list[Event]) -> None:
    assert parsed(name, output) == expected


@pytest.mark.parametrize("name", NAMES)
def test_cutting_an_output_changes_nothing(name: str) -> None:
    chance = random.Random(name)
    parser = TOOL_CALL_PARSERS[name]
    for each, output, expected in CASES:
        if each == name:
            assert fed(parser(new_id=numbered), list(output)) == expected, output
            for _ in range(6):
                assert fed(parser(new_id=numbered), cut(output, chance)) == expected, output


FRAGMENTS = [
    *("<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<tool_", "[TOOL", "; "),
    *(
        '{"name": "f", "arguments": ',
        '{"name": "f", "parameters": ',
        "{",
        "}",
        "[",
        "]",
        '"',
        "\\",
        ":",
        ",",
        " ",
        "\n",
    ),
    *('{"a": "b\\n", "c": [true, nul', "l, 1.5e3, 0", "name", "arguments", "f", "é😀", A, B, PARAM_A),
]


@pytest.mark.parametrize("name", NAMES)
def test_cutting_rubbish_changes_nothing_and_loses_no_letter(name: str) -> None:
    chance = random.Random(name + "rubbish")
    parser = TOOL_CALL_PARSERS[name]
    for _ in range(400):
        output = "".join(chance.choices(FRAGMENTS, k=chance.randrange(1, 14)))
        events = fed(parser(new_id=numbered), [output])
        assert fed(parser(new_id=numbered), list(output)) == events, output
        assert fed(parser(new_id=numbered), cut(output, chance)) == events, output
        if not any(isinstance(event, ToolCallStart) for event in events):
            assert "".join(e.text for e in events if isinstance(e, TextDelta)) == output
        check_calls(events)


def check_calls(events: list[Event]) -> None:
    """Each call begins, has arguments and ends, one after another; complete ones have a JSON object."""
    calls: dict[int, str] = {}
    open_call: int | None = None
    for event in events:
        if isinstance(event, ToolCallStart):
            assert open_call is None and event.index == len(calls)
            open_call, calls[event.index] = event.index, ""
        elif isinstance(event, ToolCallArguments):
            assert event.index == open_call
            calls[event.index] += event.delta
        elif isinstance(event, ToolCallEnd):
            assert event.index == open_call
            if event.is_complete:
                assert isinstance(json.loads(calls[event.index]), dict)
            open_call = None
    assert open_call is None


MALICE = [
    "<tool_call>",
    "<tool_call>{",
    '<tool_call>{"name": "f", "arguments": {"a": [',
    "<tool_call",
    '<tool_call>{"name": "<tool_call>',
    "[TOOL_CALLS]",
    "[TOOL_CALLS][",
    "[TOOL_CALLS]f[CALL_ID]",
    '[TOOL_CALLS][{"name": "f"},',
    "<|python_tag|>",
    '{"name": "f", "parameters": {}};',
    "<|python_tag|>{",
    "\n",
    "[[[",
    "f",
    '\\"',
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prefix", ["", "<tool_call>", '<tool_call>{"name": "f", "arguments": {"', "[TOOL_CALLS]", "{"])
def test_work_grows_with_the_text_and_no_faster(name: str, prefix: str) -> None:
    for piece in MALICE:
        output = prefix + piece * (8_000 // len(piece))
        for size in (len(output), 7):
            parser = TOOL_CALL_PARSERS[name](new_id=numbered)
            for start in range(0, len(output), size):
                parser.push(output[start : start + size])
            parser.finish()
            assert parser.num_scanned < 12 * len(output), (piece, size)


def test_a_megabyte_of_open_tags_is_a_megabyte_of_work() -> None:
    parser = TOOL_CALL_PARSERS["hermes"](new_id=numbered)
    output = "<tool_call>" * (2**20 // len("<tool_call>"))
    fed(parser, [output])
    assert parser.num_scanned < 12 * len(output)


def test_a_tool_that_the_request_does_not_have_is_text() -> None:
    output = '<tool_call>{"name": "g", "arguments": {}}</tool_call>'
    assert parsed("hermes", output, tool_names=["f"]) == text(output)
    assert parsed("hermes", output, tool_names=["f", "g"]) == call(0, "g", "{}")
    assert parsed("mistral", "[TOOL_CALLS]g[ARGS]{}", tool_names=["f"]) == text("[TOOL_CALLS]g[ARGS]{}")


def test_arguments_go_out_while_they_come() -> None:
    parser = TOOL_CALL_PARSERS["hermes"](new_id=numbered)
    assert parser.push('<tool_call>{"name": "f", "arguments": ') == []
    assert parser.push('{"a') == [ToolCallStart(0, "call0", "f"), ToolCallArguments(0, '{"a')]
    assert parser.push('": 1}') == [ToolCallArguments(0, '": 1}')]
    assert parser.push("}") == [ToolCallEnd(0)]


def test_ids_are_nine_letters_or_digits_and_differ() -> None:
    output = f"[TOOL_CALLS][{B}, {B}]"
    events = fed(TOOL_CALL_PARSERS["mistral"](), [output])
    ids = [event.id for event in events if isinstance(event, ToolCallStart)]
    assert len(set(ids)) == 2 and all(len(each) == 9 and each.isalnum() for each in ids)
