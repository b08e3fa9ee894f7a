"""Anthropic's protocol: its events, its errors, its counts. The real client is tried by `make clients`."""

from __future__ import annotations

import json
from typing import Any

import pytest

ASK: dict[str, Any] = {
    "model": "story",
    "max_tokens": 12,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Once upon a time"}],
}


def events(text: str) -> list[dict[str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        message = json.loads(data.removeprefix("data: "))
        assert name == f"event: {message['type']}"
        found.append(message)
    return found


def chat(server: Any, **change: Any) -> dict[str, Any]:
    return server.http.post("/v1/chat/completions", json={**ASK, **change}).json()


def test_it_answers_as_a_chat_does(server: Any) -> None:
    got = server.http.post("/v1/messages", json=ASK).json()
    wanted = chat(server)
    assert got["content"] == [{"type": "text", "text": wanted["choices"][0]["message"]["content"]}]
    assert (got["type"], got["role"], got["model"]) == ("message", "assistant", "story")
    assert (got["stop_reason"], got["stop_sequence"]) == ("max_tokens", None)
    usage = got["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == wanted["usage"]["prompt_tokens"]
    assert usage["output_tokens"] == 12


def test_a_system_prompt_blocks_and_turns(server: Any) -> None:
    blocks = [
        {"type": "text", "text": "Once", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "upon"},
    ]
    got = server.http.post(
        "/v1/messages",
        json={
            **ASK,
            "system": "A story.",
            "messages": [
                {"role": "user", "content": blocks},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": " time"},
            ],
        },
    ).json()
    messages = [
        {"role": "system", "content": "A story."},
        {"role": "user", "content": "Once\nupon\na"},
        {"role": "assistant", "content": " time"},
    ]
    wanted = chat(server, messages=messages, continue_final_message=True)
    assert got["content"][0]["text"] == wanted["choices"][0]["message"]["content"]


def test_the_system_may_speak_between_turns(server: Any) -> None:
    blocks = [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}]
    turns = [
        {"role": "user", "content": "Once"},
        {"role": "assistant", "content": "upon"},
        {"role": "system", "content": blocks},
        {"role": "user", "content": "a time"},
    ]
    got = server.http.post("/v1/messages", json={**ASK, "system": "A story.", "messages": turns}).json()
    messages = [{"role": "system", "content": "A story."}, *turns]
    messages[3] = {"role": "system", "content": "Be\nkind."}
    assert got["content"][0]["text"] == chat(server, messages=messages)["choices"][0]["message"]["content"]
    image = [{"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}]
    bad = server.http.post("/v1/messages", json={**ASK, "messages": [{"role": "system", "content": image}]})
    assert bad.status_code == 400 and "of system this model takes text" in bad.text


def test_a_document_of_text_is_what_it_says(server: Any) -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "Once upon a time"}
    document = {"type": "document", "source": source, "title": "A story", "context": "For children.", "citations": None}
    ask = {**ASK, "messages": [{"role": "user", "content": [document, {"type": "text", "text": "there was"}]}]}
    got = server.http.post("/v1/messages", json=ask).json()
    messages = [{"role": "user", "content": "A story\nFor children.\nOnce upon a time\nthere was"}]
    assert got["content"][0]["text"] == chat(server, messages=messages)["choices"][0]["message"]["content"]
    for change, words in (
        ({"source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}, "source is of type 'base64'"),
        ({"citations": {"enabled": True}}, "to be cited"),
        ({"source": None}, "source is of type None"),
    ):
        ask["messages"][0]["content"][0] = {**document, **change}
        bad = server.http.post("/v1/messages", json=ask)
        assert bad.status_code == 400 and words in bad.json()["error"]["message"], bad.text


def test_thoughts_that_nobody_can_read_are_left_out(server: Any) -> None:
    said = {"type": "text", "text": "Hello."}
    turns = [{"role": "user", "content": "Once"}, {"role": "assistant", "content": [said]}, ASK["messages"][0]]
    plain = server.http.post("/v1/messages", json={**ASK, "messages": turns}).json()
    turns[1]["content"] = [{"type": "redacted_thinking", "data": "EmwKAhgB"}, said]
    got = server.http.post("/v1/messages", json={**ASK, "messages": turns}).json()
    assert got["content"] == plain["content"] != []
    turns[1]["content"] = [{"type": "redacted_thinking"}, said]
    assert "needs data" in server.http.post("/v1/messages", json={**ASK, "messages": turns}).json()["error"]["message"]


def test_a_stop_sequence(server: Any) -> None:
    whole = server.http.post("/v1/messages", json={**ASK, "max_tokens": 30}).json()["content"][0]["text"]
    word = whole.split()[4]
    got = server.http.post("/v1/messages", json={**ASK, "max_tokens": 30, "stop_sequences": [word]}).json()
    assert got["content"][0]["text"] == whole[: whole.index(word)]
    assert (got["stop_reason"], got["stop_sequence"]) == ("stop_sequence", word)


def test_a_stream_adds_up(server: Any) -> None:
    whole = server.http.post("/v1/messages", json=ASK).json()
    found = events(server.http.post("/v1/messages", json={**ASK, "stream": True}).text)
    kinds = [event["type"] for event in found]
    assert kinds[:3] == ["message_start", "ping", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[3:-3]) == {"content_block_delta"}
    assert "".join(event["delta"]["text"] for event in found[3:-3]) == whole["content"][0]["text"]
    assert found[0]["message"]["content"] == []
    assert found[0]["message"]["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert found[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert found[-2]["usage"]["output_tokens"] == 12


def test_counting_tokens(server: Any) -> None:
    ask = {name: ASK[name] for name in ("model", "messages")}
    got = server.http.post("/v1/messages/count_tokens", json={**ask, "system": [{"type": "text", "text": "Hi."}]})
    messages = [{"role": "system", "content": "Hi."}, *ASK["messages"]]
    assert got.json() == {"input_tokens": chat(server, messages=messages)["usage"]["prompt_tokens"]}


def test_neutral_values_ask_for_nothing(server: Any) -> None:
    neutral = {
        "system": None, "stop_sequences": None, "stream": False, "top_k": None, "top_p": None, "tools": [],
        "tool_choice": None, "thinking": {"type": "disabled"}, "metadata": {"user_id": "me"}, "service_tier": "auto",
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "some_new_field": None, "output_config": {}, "speed": "standard", "workspace_id": "w", "user_profile_id": "u",
    }  # fmt: skip
    got = server.http.post("/v1/messages?beta=true", json={**ASK, **neutral})
    assert got.status_code == 200 and got.headers["request-id"] == got.json()["id"]


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_an_answer_of_a_form(server: Any, name: str) -> None:
    form = {"type": "json_schema", "schema": {"enum": ["red", "blue"]}}
    body = {**ASK, "max_tokens": 60, name: {"format": form} if name == "output_config" else form}
    got = server.http.post("/v1/messages", json=body).json()
    assert json.loads(got["content"][0]["text"]) in ("red", "blue") and got["stop_reason"] == "end_turn"
    bad = {"type": "json_schema", "schema": {"not": {"type": "null"}}}
    got = server.http.post("/v1/messages", json={**ASK, "output_config": {"format": bad}})
    assert got.status_code == 400 and got.json()["error"]["message"].startswith("output_config.format"), got.text


@pytest.mark.parametrize(
    ("change", "status", "kind", "words"),
    [
        ({"tools": [{"name": "f"}]}, 400, "invalid_request_error", "tools"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, 400, "invalid_request_error", "thinking"),
        ({"output_config": {"format": {"type": "text"}}}, 400, "invalid_request_error", "output_config.format"),
        ({"output_config": {"verbosity": 1}}, 400, "invalid_request_error", "verbosity"),
        ({"speed": "fast"}, 400, "invalid_request_error", "speed"),
        ({"some_new_field": 1}, 400, "invalid_request_error", "some_new_field"),
        ({"max_tokens": 0}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": 2**63}, 400, "invalid_request_error", "max_tokens"),
        ({"max_tokens": None}, 400, "invalid_request_error", "max_tokens"),
        ({"temperature": -1}, 400, "invalid_request_error", "temperature"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "invalid_request_error", "tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, 400, "invalid_request_error", "image"),
        ({"model": "other"}, 404, "not_found_error", "other"),
    ],
)
def test_errors_are_anthropics(server: Any, change: dict[str, Any], status: int, kind: str, words: str) -> None:
    got = server.http.post("/v1/messages", json={**ASK, **change})
    body = got.json()
    assert (got.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert words in body["error"]["message"]


def test_a_missing_key_is_told_in_the_same_words(guarded: Any) -> None:
    got = guarded.http.post("/v1/messages", json=ASK)
    assert got.status_code == 401 and got.json()["error"]["type"] == "authentication_error"
    assert got.json()["type"] == "error"
    assert guarded.http.post("/v1/messages", json=ASK, headers={"x-api-key": "sesame"}).status_code == 200
