"""Harmony, the format of gpt-oss: however it is cut, and what the published chat template writes comes back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from albireo.errors import ConfigError
from albireo.parsers.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    joined,
)
from albireo.parsers.output_parser import (
    OutputParser,
    detect_reasoning_parser,
    detect_tool_call_parser,
    needs_special_tokens,
    output_parser,
    reasoning_tags,
)
from albireo.parsers.tool_form import answer_form, read_tools, tool_call_form
from albireo.structured_params import StructuredOutputsParams
from albireo.text.chat_template import ChatTemplate
from albireo.text.conversation import Conversation
from tiny_models import shared_data

THOUGHT = "<|channel|>analysis<|message|>The user < asks.\nHm<|end|>"
ANSWER = "<|start|>assistant<|channel|>final<|message|>It is <b>4</b>.\n"
CALL = '<|start|>assistant<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}'


def parser(tools: str | None = "openai", reasoning: str | None = "openai_gptoss", **options: Any) -> OutputParser:
    return output_parser(tool_call_parser=tools, reasoning_parser=reasoning, new_id=lambda i: f"call{i}", **options)


def call(index: int, name: str, arguments: str, is_complete: bool = True) -> list[Event]:
    return [
        ToolCallStart(index, f"call{index}", name),
        ToolCallArguments(index, arguments),
        ToolCallEnd(index, is_complete),
    ]


CASES: list[tuple[str, Sequence[Event]]] = [
    (THOUGHT + ANSWER, [ReasoningDelta("The user < asks.\nHm"), TextDelta("It is <b>4</b>.\n")]),
    (THOUGHT + ANSWER + "<|return|>", [ReasoningDelta("The user < asks.\nHm"), TextDelta("It is <b>4</b>.\n")]),
    (ANSWER.removeprefix("<|start|>assistant"), [TextDelta("It is <b>4</b>.\n")]),
    (THOUGHT + CALL, [ReasoningDelta("The user < asks.\nHm"), *call(0, "get_weather", '{"city": "Oslo"}')]),
    (
        CALL + "<|call|>" + CALL,
        [*call(0, "get_weather", '{"city": "Oslo"}'), *call(1, "get_weather", '{"city": "Oslo"}')],
    ),
    (CALL[:-3], call(0, "get_weather", '{"city": "Osl', False)),
    (CALL.replace('{"city": "Oslo"}', ""), call(0, "get_weather", "{}")),
    # the recipient before the channel, as the template writes a past call
    (' to=functions.f<|channel|>commentary json<|message|>{"a": [1]}', call(0, "f", '{"a": [1]}')),
    # said before a call; two thoughts; a message whose end is missing
    (
        "<|channel|>commentary<|message|>I will look.<|end|>" + CALL,
        [TextDelta("I will look."), *call(0, "get_weather", '{"city": "Oslo"}')],
    ),
    (THOUGHT + "<|start|>assistant" + THOUGHT, [ReasoningDelta("The user < asks.\nHm\nThe user < asks.\nHm")]),
    ("<|channel|>analysis<|message|>a" + ANSWER, [ReasoningDelta("a"), TextDelta("It is <b>4</b>.\n")]),
    # another tool than a function
    ("<|channel|>analysis to=browser.search code<|message|>{}<|call|>", [ReasoningDelta("{}")]),
    # no format at all, a header that never ends, an output cut in its header
    ("Hello <|there|>", [TextDelta("Hello <|there|>")]),
    ("<|channel|>" + "x" * 600, [TextDelta("<|channel|>" + "x" * 600)]),
    (THOUGHT + "<|start|>assistant<|chan", [ReasoningDelta("The user < asks.\nHm")]),
    ("", []),
]


@pytest.mark.parametrize(("text", "wanted"), CASES, ids=[str(i) for i in range(len(CASES))])
def test_what_an_output_is_however_it_is_cut(text: str, wanted: Sequence[Event]) -> None:
    assert joined(parser().parse(text)) == list(wanted)
    for size in (1, 2, 3, 7, 19):
        cut = parser()
        events = [e for i in range(0, len(text), size) for e in cut.push(text[i : i + size])]
        assert joined([*events, *cut.finish()]) == list(wanted), size


def test_an_answer_streams_as_it_comes() -> None:
    cut = parser()
    assert cut.push(THOUGHT + "<|start|>assistant<|channel|>final<|message|>It ")[-1] == TextDelta("It ")
    assert cut.push("is") == [TextDelta("is")]
    assert cut.push(" 4 <") == [TextDelta(" 4 ")]
    assert cut.push("5") == [TextDelta("<5")]


def test_what_is_not_asked_for_is_text() -> None:
    assert joined(parser(tools=None).parse(CALL)) == [ReasoningDelta('{"city": "Oslo"}')]
    assert joined(parser(tools=None, reasoning="openai_gptoss").parse(THOUGHT + ANSWER)) == CASES[0][1]
    only_calls = joined(parser(reasoning=None).parse(THOUGHT + CALL))
    assert only_calls == [TextDelta("The user < asks.\nHm"), *call(0, "get_weather", '{"city": "Oslo"}')]
    others = joined(parser(tool_names=["f"]).parse(CALL))
    assert others == [ReasoningDelta('{"city": "Oslo"}')], "a function that is not among the tools"
    with pytest.raises(ConfigError, match=r"tool_call_parser='harmony' is unknown; .*openai"):
        parser(tools="harmony")


def template() -> str:
    return shared_data("tokenizers", "chat-only", "gpt-oss", "chat_template.jinja").read_text()


def test_it_is_found_by_the_template() -> None:
    assert detect_tool_call_parser(template()) == "openai"
    assert detect_reasoning_parser(template()) == "openai_gptoss"
    assert needs_special_tokens("openai", None) and needs_special_tokens(None, "openai_gptoss")


def test_what_the_template_writes_comes_back() -> None:
    """A call with what was thought before it, and an answer, as turns of a conversation."""
    arguments = {"city": "Oslo", "days": 2}
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": parameters}}
    # as this template reads them: what was thought is the content, a call lies open
    called_tool = {"name": "get_weather", "arguments": arguments}
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "Ask the tool.", "tool_calls": [called_tool]},
    ]
    rendered = ChatTemplate(template()).render
    asked = rendered(Conversation(turns[:1], [tool]))
    assert asked.endswith("<|start|>assistant")
    called = rendered(Conversation(turns, [tool], add_generation_prompt=False))
    events = joined(parser().parse(called.removeprefix(asked)))
    assert events[0] == ReasoningDelta("Ask the tool.") and events[1] == ToolCallStart(0, "call0", "get_weather")
    assert isinstance(events[2], ToolCallArguments) and json.loads(events[2].delta) == arguments
    assert events[3:] == [ToolCallEnd(0)]


def test_forms() -> None:
    """Calls and answers that are enforced begin with their headers, behind what was thought or at once."""
    tags = reasoning_tags("openai_gptoss")
    tools = read_tools([{"type": "function", "function": {"name": "f", "strict": True}}])
    required = tool_call_form(tools, "required", "openai", reasoning=tags)
    assert required is not None
    thoughtful, at_once = required.schema["format"]["elements"]
    thought, behind, calls = thoughtful["elements"]
    assert (thought["begin"], thought["end"]) == (tags.begin, "<|end|>")
    assert behind["value"] == "<|start|>assistant" and calls == at_once and calls["stop_after_first"]
    begin = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>"
    assert calls["tags"][0]["begin"] == begin
    auto = tool_call_form(tools, "auto", "openai", reasoning=tags)
    assert auto is not None
    thoughtful, at_once = auto.schema["format"]["elements"]
    assert thoughtful["elements"][-1] == at_once and thoughtful["elements"][0]["end"] == "<|end|>"
    answered, free = at_once["elements"]
    assert answered["elements"] == [{"type": "const_string", "value": tags.answer}, free]
    assert begin.startswith(free["triggers"][0])
    answer = answer_form(StructuredOutputsParams(regex="a+"), tags).schema["format"]["elements"]
    assert answer == [
        {"type": "const_string", "value": "<|channel|>final<|message|>"},
        {"type": "regex", "pattern": "a+"},
    ]
    plain = StructuredOutputsParams(regex="a+")
    assert answer_form(plain, None) is plain and answer_form(plain, reasoning_tags("think")) is plain
