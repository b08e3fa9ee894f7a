"""Tools in namespaces, and tools that a server would run, over /v1/responses: as coding agents send them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest

from tool_asks import CLOCK, SCHEMAS, WEATHER

CLOCKS = {
    "type": "namespace",
    "name": "town",
    "description": "All about the town.",
    "tools": [
        {"type": "function", "name": "clock", "description": "What time it is.", "parameters": CLOCK},
        {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False, "defer_loading": False},
    ],
}
PLAIN = {"type": "function", "name": "clock", "parameters": {"type": "object", "additionalProperties": False}}
SEARCH = {"type": "web_search", "external_web_access": False}
ASK: dict[str, Any] = {
    "model": "story",
    "input": "Once upon a time",
    "max_output_tokens": 200,
    "tools": [CLOCKS, PLAIN],
    "parallel_tool_calls": False,
    "extra_body": {"seed": 1},
}
IN_TOWN = {"type": "function", "name": "clock", "namespace": "town"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (IN_TOWN, ("town", "clock")),
        ({"type": "function", "name": "clock"}, (None, "clock")),
        ({"type": "function", "name": "weather"}, ("town", "weather")),
        ({"type": "allowed_tools", "mode": "required", "tools": [IN_TOWN]}, ("town", "clock")),
    ],
)
def test_a_call_names_the_namespace_of_its_function(caller: Any, choice: Any, expected: Any) -> None:
    client = caller.client()
    got = client.responses.create(**ASK, tool_choice=choice)
    (call,) = got.output
    assert (call.namespace, call.name) == expected and got.status == "completed"
    schema = SCHEMAS[call.name] if call.namespace else PLAIN["parameters"]
    jsonschema.validate(json.loads(call.arguments), schema)
    assert [tool.type for tool in got.tools] == ["namespace", "function"]
    assert got.tools[0].to_dict() == CLOCKS
    events = list(client.responses.create(**ASK, tool_choice=choice, stream=True))
    items = [event.item for event in events if event.type.startswith("response.output_item")]
    assert {(item.namespace, item.name) for item in items} == {expected} and items[-1].arguments == call.arguments
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert done.name == expected[1]


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_call_of_a_namespace_goes_back_by_the_name_that_the_model_was_shown(caller: Any, is_stored: bool) -> None:
    client = caller.client()
    first = client.responses.create(**ASK, tool_choice=IN_TOWN, store=is_stored)
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
    earlier = [] if is_stored else [{"role": "user", "content": ASK["input"]}, call.to_dict()]
    more = {"previous_response_id": first.id} if is_stored else {}
    second = client.responses.create(**{**ASK, "input": [*earlier, result], "max_output_tokens": 4}, **more)
    function = {"name": "town__clock", "arguments": call.arguments}
    messages = [
        {"role": "user", "content": ASK["input"]},
        {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.call_id, "content": "noon"},
    ]
    inner = [{key: each[key] for key in ("name", "parameters")} for each in CLOCKS["tools"]]
    shown = [{"type": "function", "function": {**each, "name": f"town__{each['name']}"}} for each in inner]
    shown.append({"type": "function", "function": {"name": "clock", "parameters": PLAIN["parameters"]}})
    chat = {"messages": messages, "tools": shown, "max_tokens": 4, "temperature": 0}
    made = caller.http.post("/v1/chat/completions", json=chat).json()
    assert second.usage.input_tokens == made["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        (
            {"type": "namespace", "name": "town", "tools": []},
            r"tools\[0\] is a namespace, which needs a name, and tools",
        ),
        ({"type": "namespace", "tools": [PLAIN]}, "is a namespace, which needs a name"),
        ({**CLOCKS, "tools": [PLAIN, {"type": "custom", "name": "x"}]}, r"tools\[0\].tools\[1\] is of type 'custom'"),
        ({**CLOCKS, "tools": [{"type": "function"}]}, r"tools\[0\].tools\[0\] needs a name"),
        ({**CLOCKS, "tools": [{**PLAIN, "defer_loading": True}]}, r"tools\[0\].tools\[0\].defer_loading is not supp"),
        ({**PLAIN, "allowed_callers": ["programmatic"]}, r"tools\[0\].allowed_callers is not supported"),
        ({**CLOCKS, "name": "x" * 60}, "must be 1 to 64 letters"),
        (SEARCH, r"tools\[0\] is of type 'web_search': a server would have to run it.*--leave-out-hosted-tools"),
    ],
)
def test_what_cannot_be_done_says_where_and_why(caller: Any, tool: Any, words: str) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as raised:
        caller.client().responses.create(**{**ASK, "tools": [tool]})
    assert raised.value.param == "tools"


def test_tools_that_a_server_would_run_are_left_out_where_it_is_told_to(start: Any) -> None:
    server = start("--leave-out-hosted-tools", "--tool-call-parser", "hermes")
    client = server.client()
    short = {**ASK, "max_output_tokens": 4}
    for kind in ("web_search", "web_search_preview_2025_03_11", "file_search", "code_interpreter", "image_generation"):
        got = client.responses.create(**{**short, "tools": [{**SEARCH, "type": kind}, PLAIN]})
        assert [tool.type for tool in got.tools] == ["function"], kind
    assert client.responses.create(**{**short, "tools": [SEARCH]}).tools == []
    for tools, choice in (([{"type": "local_shell"}], "auto"), ([SEARCH], "required"), ([SEARCH], SEARCH)):
        with pytest.raises(openai.BadRequestError):
            client.responses.create(**{**short, "tools": tools, "tool_choice": choice})
