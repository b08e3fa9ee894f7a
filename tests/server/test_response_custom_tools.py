"""Tools whose input is a text, over /v1/responses, with the real openai client."""

from __future__ import annotations

import json
import re
from typing import Any

import openai
import pytest

from albireo.server.dialects.custom_tools import arguments_of, as_function, input_of

PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "patch",
    "description": "Changes a file.",
    "format": {"type": "grammar", "syntax": "regex", "definition": "[a-d]{3}\n[0-9]{2}"},
}
SAY = {"type": "custom", "name": "say"}
NAMED = {"type": "custom", "name": "patch"}
ASK: dict[str, Any] = {
    "model": "story",
    "input": "Once upon a time",
    "max_output_tokens": 300,
    "tools": [PATCH, {"type": "function", "name": "clock", "parameters": {"type": "object"}}],
    "parallel_tool_calls": False,
    "extra_body": {"seed": 1},
}


@pytest.mark.parametrize("choice", [NAMED, {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}])
def test_a_call_has_a_text_that_fits(caller: Any, choice: Any) -> None:
    client = caller.client()
    got = client.responses.create(**ASK, tool_choice=choice)
    (item,) = got.output
    assert (got.status, item.type, item.name) == ("completed", "custom_tool_call", "patch")
    assert re.fullmatch(PATCH["format"]["definition"], item.input) and item.id.startswith("ctc_")
    assert got.tools[0].to_dict() == PATCH
    events = list(client.responses.create(**ASK, tool_choice=choice, stream=True))
    kinds = [event.type for event in events]
    assert kinds[2:] == [
        "response.output_item.added", "response.custom_tool_call_input.delta", "response.custom_tool_call_input.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert (events[2].item.input, events[3].delta, events[4].input) == ("", item.input, item.input)
    assert events[-1].response.output[0].input == item.input
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_a_conversation_goes_on_with_its_result(caller: Any) -> None:
    client = caller.client()
    first = client.responses.create(**ASK, tool_choice=NAMED)
    (item,) = first.output
    result = {"type": "custom_tool_call_output", "call_id": item.call_id, "output": "done"}
    ask = {**ASK, "max_output_tokens": 8}
    stored = client.responses.create(**{**ask, "input": [result]}, previous_response_id=first.id)
    told = [{"role": "user", "content": "Once upon a time"}, item.to_dict(), result]
    again = client.responses.create(**{**ask, "input": told})
    assert stored.usage.input_tokens == again.usage.input_tokens
    call = {"name": "patch", "arguments": arguments_of(item.input), "call_id": item.call_id, "type": "function_call"}
    as_functions = [told[0], call, {**result, "type": "function_call_output"}]
    same = client.responses.create(**{**ask, "input": as_functions})
    assert same.usage.input_tokens == again.usage.input_tokens


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({**PATCH, "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}}, "regular expressions"),
        ({**SAY, "format": {"type": "xml"}}, "is not supported"),
        ({**SAY, "strict": True}, "tools[0].strict"),
        ({"type": "custom"}, "needs a name"),
    ],
)
def test_what_is_not_done_is_refused(caller: Any, tool: dict[str, Any], words: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        caller.client().responses.create(**{**ASK, "tools": [tool]})
    assert words in raised.value.message and raised.value.param == "tools"


def test_texts_and_arguments() -> None:
    text = 'a "b"\n\\ ☺'
    assert input_of(arguments_of(text)) == text and json.loads(arguments_of(text)) == {"input": text}
    for other in ('{"input": 5}', '{"in', "[]", "{}"):
        assert input_of(other) == other, "cut off, or something else"
    made = as_function("tools[0]", {**SAY, "description": "Says it.", "format": {"type": "text"}})
    assert made["parameters"]["properties"] == {"input": {"type": "string"}} and made["description"] == "Says it."
    assert not made["strict"] and as_function("tools[0]", PATCH)["strict"]
