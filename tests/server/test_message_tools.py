"""Tool calls and thinking in Anthropic's protocol. The real client is tried by `make clients`."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from server_process import Server
from tool_asks import SCHEMAS

TOOLS = [{"name": name, "description": "…", "input_schema": schema} for name, schema in SCHEMAS.items()]
ASK: dict[str, Any] = {
    "model": "story",
    "max_tokens": 300,
    "messages": [{"role": "user", "content": "Once upon a time"}],
    "tools": TOOLS,
    "tool_choice": {"type": "tool", "name": "clock"},
}
#: Greedy decoding repeats itself in strings; these schemas have none.
GREEDY = {"temperature": 0}


CALL = {"type": "tool_use", "id": "a", "name": "clock", "input": {}}


def post(server: Server, **change: Any) -> dict[str, Any]:
    answer = server.http.post("/v1/messages", json={**ASK, **GREEDY, **change})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def events(server: Server, **change: Any) -> list[dict[str, Any]]:
    text = server.http.post("/v1/messages", json={**ASK, **GREEDY, "stream": True, **change}).text
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def blocks_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the events of a stream add up to, as Anthropic's client adds them."""
    blocks: list[dict[str, Any]] = []
    for event in found:
        if event["type"] == "content_block_start":
            assert event["index"] == len(blocks)
            blocks.append(dict(event["content_block"]) | {"json": ""})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(blocks) - 1
            kind = event["delta"]["type"]
            name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
            blocks[-1]["json" if name == "partial_json" else name] += event["delta"][name]
    for block in blocks:
        if text := block.pop("json"):
            block["input"] = json.loads(text)
    return blocks


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "clock"}])
def test_a_call_that_is_asked_for_comes_and_fits(caller: Any, choice: dict[str, Any]) -> None:
    choice = {**choice, "disable_parallel_tool_use": True}
    got = post(caller, tool_choice=choice)
    (block,) = got["content"]
    assert (got["stop_reason"], block["type"]) == ("tool_use", "tool_use")
    jsonschema.validate(block["input"], SCHEMAS[block["name"]])
    found = events(caller, tool_choice=choice)
    (streamed,) = blocks_of(found)
    assert {**streamed, "id": ""} == {**block, "id": ""} and re.fullmatch("[A-Za-z0-9_-]+", streamed["id"])
    (start,) = [event for event in found if event["type"] == "content_block_start"]
    assert start["content_block"]["input"] == {}
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_auto_and_none_leave_the_model_free(caller: Any) -> None:
    for choice in ({"type": "auto"}, {"type": "none"}, None):
        got = post(caller, tool_choice=choice, max_tokens=8)
        assert [block["type"] for block in got["content"]] == ["text"] and got["stop_reason"] == "max_tokens"


def test_a_call_and_its_result_go_into_the_conversation(caller: Any) -> None:
    (block,) = post(caller)["content"]
    results = [
        {"type": "tool_result", "tool_use_id": block["id"], "content": [{"type": "text", "text": "noon"}]},
        {"type": "tool_result", "tool_use_id": "other", "content": "late", "is_error": True},
        {"type": "text", "text": "And then?"},
    ]
    said = [{"type": "text", "text": "Let me see."}, block]
    messages = [*ASK["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": results}]
    call = {
        "id": block["id"],
        "type": "function",
        "function": {"name": "clock", "arguments": json.dumps(block["input"])},
    }
    chat = {
        "messages": [
            *ASK["messages"],
            {"role": "assistant", "content": "Let me see.", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": block["id"], "content": "noon"},
            {"role": "tool", "tool_call_id": "other", "content": "Error: late"},
            {"role": "user", "content": "And then?"},
        ],
        "tools": [
            {"type": "function", "function": {"name": t["name"], "description": "…", "parameters": t["input_schema"]}}
            for t in TOOLS
        ],
        "max_tokens": 8,
        **GREEDY,
    }
    wanted = caller.http.post("/v1/chat/completions", json=chat).json()
    got = post(caller, messages=messages, tool_choice={"type": "auto"}, max_tokens=8)
    assert got["content"] == [{"type": "text", "text": wanted["choices"][0]["message"]["content"]}]
    usage = got["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == wanted["usage"]["prompt_tokens"]
    ask = {"model": "story", "messages": messages, "tools": TOOLS, "tool_choice": {"type": "auto"}}
    counted = caller.http.post("/v1/messages/count_tokens", json=ask).json()
    assert counted == {"input_tokens": wanted["usage"]["prompt_tokens"]}


def test_a_call_that_is_cut_off_has_no_input(caller: Any) -> None:
    got = post(caller, max_tokens=24)
    assert got["stop_reason"] == "max_tokens"
    assert [block.get("input", {}) for block in got["content"]] == [{}]


def test_thinking(thinker: Any) -> None:
    """The template opens the thinking when its variable says so; the model never learnt to end it, its budget does."""
    ask = {"tools": None, "tool_choice": None, "max_tokens": 20}
    thinks = {**ask, "thinking": {"type": "enabled", "budget_tokens": 10}}
    block, answer = post(thinker, **thinks)["content"]
    assert block["type"] == "thinking" and block["thinking"] and block["signature"] == ""
    assert answer["type"] == "text" and answer["text"]
    assert post(thinker, **ask, thinking={"type": "enabled", "budget_tokens": 10.0})["content"] == [block, answer]
    found = events(thinker, **thinks)
    assert blocks_of(found) == [block, answer]
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"thinking_delta", "text_delta"}
    for off in ({"type": "disabled"}, {"type": "adaptive"}, None):
        assert [each["type"] for each in post(thinker, **ask, thinking=off)["content"]] == ["text"]
    earlier = [block, {"type": "text", "text": "So be it."}]
    messages = [*ASK["messages"], {"role": "assistant", "content": earlier}, {"role": "user", "content": "Then"}]
    assert post(thinker, **ask, messages=messages)["content"][0]["type"] == "text"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tools": [{"name": "f"}]}, "tools[0] needs input_schema"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0]"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "bash_20250124"),
        ({"tools": [{**TOOLS[0], "defer_loading": True}]}, "defer_loading"),
        ({"tool_choice": {"type": "tool", "name": "other"}}, "tool_choice names the function 'other'"),
        ({"tool_choice": {"type": "often"}}, "tool_choice.type='often'"),
        ({"tool_choice": {"type": "any"}, "tools": []}, "tool_choice"),
        ({"tool_choice": {"type": "auto", "disable_parallel_tool_use": 5}}, "disable_parallel_tool_use"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "does not think"),
        ({"thinking": {"type": "often"}}, "thinking.type"),
        ({"thinking": {"type": "disabled", "budget_tokens": 5}}, "budget_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use"}]}]}, "'tool_use'; of user"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b"}]}]}, "input"),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "b", "input": {}}]}
                ]
            },
            "end with a tool_use",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": [5]}]}]},
            "content[0]",
        ),
    ],
)
def test_what_cannot_be_done_is_told(caller: Any, change: dict[str, Any], words: str) -> None:
    got = caller.http.post("/v1/messages", json={**ASK, **change})
    body = got.json()
    assert (got.status_code, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert words in body["error"]["message"]


@pytest.mark.parametrize("budget", [0, -1, 300, 5.5, "5", True, None, 2**63])
def test_a_budget_is_within_max_tokens(thinker: Any, budget: Any) -> None:
    ask = {**ASK, "thinking": {"type": "enabled", "budget_tokens": budget}}
    got = thinker.http.post("/v1/messages", json=ask)
    assert got.status_code == 400 and "budget_tokens" in got.json()["error"]["message"]
