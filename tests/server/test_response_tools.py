"""Tool calls and reasoning over /v1/responses, with the real openai client."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import openai
import pytest

from server_process import wait_until
from tool_asks import SCHEMAS

TOOLS: list[Any] = [
    {"type": "function", "name": name, "description": "…", "parameters": schema} for name, schema in SCHEMAS.items()
]
ASK: dict[str, Any] = {
    "model": "story",
    "input": "Once upon a time",
    "temperature": 1.0,
    "max_output_tokens": 300,
    "tools": TOOLS,
    "parallel_tool_calls": False,
}
NAMED = {"type": "function", "name": "clock"}
ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}


def seeded(seed: int, **body: Any) -> dict[str, Any]:
    return {"extra_body": {"seed": seed, **body}}


@pytest.mark.parametrize("choice", ["required", NAMED, ALLOWED])
def test_a_call_that_is_asked_for_comes_and_fits(caller: Any, choice: Any) -> None:
    client = caller.client()
    got = client.responses.create(**ASK, tool_choice=choice, **seeded(1))
    (item,) = got.output
    assert (got.status, item.type, item.status) == ("completed", "function_call", "completed")
    jsonschema.validate(json.loads(item.arguments), SCHEMAS[item.name])
    assert choice == "required" or item.name == "clock"
    assert item.id.startswith("fc_") and item.call_id and got.output_text == ""
    assert [tool.name for tool in got.tools] == list(SCHEMAS) and got.parallel_tool_calls is False
    chosen = got.tool_choice if isinstance(got.tool_choice, str) else got.tool_choice.to_dict()
    assert chosen == choice


def test_a_stream_of_a_call_adds_up(caller: Any) -> None:
    client = caller.client()
    ask = {**ASK, "tool_choice": "required", **seeded(1)}
    whole = client.responses.create(**ask).output[0]
    found = list(client.responses.create(**ask, stream=True))
    kinds = [event.type for event in found]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    deltas = found[3:-3]
    assert {event.type for event in deltas} == {"response.function_call_arguments.delta"}
    assert "".join(event.delta for event in deltas) == found[-3].arguments == whole.arguments
    assert found[2].item.name == whole.name and found[2].item.arguments == ""
    assert len({event.item_id for event in [*deltas, found[-3]]} | {found[2].item.id}) == 1
    with client.responses.stream(**ask) as stream:
        final = stream.get_final_response()
    (call,) = final.output
    assert (call.name, call.arguments) == (whole.name, whole.arguments)


def test_several_calls_are_items_in_order(caller: Any) -> None:
    client = caller.client()
    ask = {**ASK, "tool_choice": "required", "parallel_tool_calls": True}
    for seed in range(8):
        found = list(client.responses.create(**ask, **seeded(seed), stream=True))
        items = found[-1].response.output
        added = [event for event in found if event.type == "response.output_item.added"]
        assert [event.output_index for event in added] == list(range(len(items)))
        assert [event.item.id for event in added] == [item.id for item in items]
        calls = [item for item in items if item.type == "function_call" and item.status == "completed"]
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])
        if len(calls) > 1:
            assert len({call.call_id for call in calls}) == len(calls)
            return
    raise AssertionError("no answer had several calls")


def test_auto_and_none_leave_the_model_free(caller: Any) -> None:
    client = caller.client()
    for choice in ("auto", "none"):
        got = client.responses.create(**{**ASK, "max_output_tokens": 8}, tool_choice=choice)
        assert [item.type for item in got.output] == ["message"] and got.output_text
        assert got.tool_choice == choice and client.responses.retrieve(got.id).tools == got.tools


def prompt_of(server: Any, body: dict[str, Any]) -> str:
    """How a chat of these messages is rendered, as the token ids say it."""
    ask = {**body, "max_tokens": 1, "return_token_ids": True}
    ids = server.http.post("/v1/chat/completions", json=ask).json()["prompt_token_ids"]
    return str(server.http.post("/detokenize", json={"tokens": ids}).json()["prompt"])


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_call_and_its_result_go_into_the_conversation(caller: Any, is_stored: bool) -> None:
    """Handed back item for item, or kept by the server: the model reads the same, which is what a chat makes of it."""
    client = caller.client()
    first = client.responses.create(**ASK, tool_choice=NAMED, store=is_stored, **seeded(1))
    (call,) = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "noon"}
    earlier = [] if is_stored else [{"role": "user", "content": ASK["input"]}, call.to_dict()]
    more = {"previous_response_id": first.id} if is_stored else {}
    second = client.responses.create(**{**ASK, "input": [*earlier, result], "max_output_tokens": 8}, **more)
    function = {"name": call.name, "arguments": call.arguments}
    messages = [
        {"role": "user", "content": ASK["input"]},
        {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": call.call_id, "content": "noon"},
    ]
    tools = [{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in TOOLS]
    chat = {"messages": messages, "tools": tools}
    assert re.search(r"<tool_call>clock ?{.*}</tool_call>\s*noon", prompt_of(caller, chat))
    made = caller.http.post("/v1/chat/completions", json={**chat, "max_tokens": 8}).json()
    assert second.usage.input_tokens == made["usage"]["prompt_tokens"]
    assert second.output_text and second.status == "incomplete"


def test_a_call_that_is_cut_off_is_incomplete(caller: Any) -> None:
    got = caller.client().responses.create(**{**ASK, "max_output_tokens": 24}, tool_choice=NAMED)
    assert got.status == "incomplete" and [item.status for item in got.output] == ["incomplete"]


def test_in_the_background(caller: Any) -> None:
    client = caller.client()
    made = client.responses.create(**ASK, tool_choice="required", background=True, **seeded(1))
    done = wait_until(
        lambda: r if (r := client.responses.retrieve(made.id)).status not in ("queued", "in_progress") else None
    )
    whole = client.responses.create(**ASK, tool_choice="required", **seeded(1))
    assert [(item.name, item.arguments) for item in done.output] == [
        (item.name, item.arguments) for item in whole.output
    ]


def test_reasoning_is_an_item_of_its_own(thinker: Any) -> None:
    client = thinker.client()
    ask: dict[str, Any] = {"model": "story", "input": "Once", "max_output_tokens": 40}
    asked = {**ask, **seeded(3, chat_template_kwargs={"think": True})}
    whole = client.responses.create(**asked)
    (item,) = whole.output
    assert (item.type, item.status, item.summary) == ("reasoning", "incomplete", [])
    thought = item.content[0].text
    assert thought and whole.output_text == "" and whole.usage.output_tokens_details.reasoning_tokens > 0
    found = list(client.responses.create(**asked, stream=True))
    said = [event for event in found if event.type == "response.reasoning_text.delta"]
    assert "".join(event.delta for event in said) == thought
    (done,) = [event for event in found if event.type == "response.reasoning_text.done"]
    assert done.text == thought and {event.item_id for event in said} == {done.item_id}
    items = [{"role": "user", "content": "Once"}, item.to_dict(), {"role": "user", "content": "Then"}]
    again = client.responses.create(**{**ask, "input": items})
    assert again.output_text and again.output[0].type == "message"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "nested"}}]}, "tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": 5}, "tools"),
        ({"tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": "often"}, "tool_choice"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"input": [{"type": "function_call", "name": "clock", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call_output", "output": "noon"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": 5}]}, "input"),
        ({"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]}, "input"),
        ({"input": [{"type": ["reasoning"]}]}, "input"),
        ({"text": {"format": {"type": "json_schema", "schema": {"not": {"type": "null"}}}}, "tools": []}, "text"),
    ],
)
def test_what_cannot_be_done_is_a_400_that_names_the_field(caller: Any, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        caller.client().post("/responses", body={**ASK, **change}, cast_to=object)
    assert raised.value.param == param, raised.value.message
