"""Fields that vLLM's protocols have beyond OpenAI's and Anthropic's, where they change what is told, or how."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from albireo.server.event_stream import EVENTS, KEEP_ALIVE
from albireo.server.streaming import _news
from server_process import Server, wait_until

CHAT: dict[str, Any] = {"model": "story", "messages": [{"role": "user", "content": "Once upon a time"}]}
CHAT |= {"temperature": 0, "max_tokens": 20}
RESPONSE: dict[str, Any] = {"model": "story", "input": "Once", "max_output_tokens": 30}
THINKING: dict[str, Any] = {"seed": 3, "chat_template_kwargs": {"think": True}, "thinking_token_budget": 6}


@pytest.mark.parametrize("path", ["chat", "completions"])
def test_chunks_wait_for_as_many_tokens_as_are_asked_for(server: Any, path: str) -> None:
    client = server.client()
    made = client.chat.completions if path == "chat" else client.completions
    ask = CHAT if path == "chat" else {**CHAT, "prompt": "Once upon a time"}
    ask = {name: value for name, value in ask.items() if path == "chat" or name != "messages"}

    def texts(**more: Any) -> tuple[str, list[int]]:
        body = {"return_token_ids": True, "ignore_eos": True, **more}
        chunks = [chunk.choices[0] for chunk in made.create(**ask, stream=True, extra_body=body)]
        said = [choice.delta.content if path == "chat" else choice.text for choice in chunks]
        counts = [len(choice.token_ids) for choice in chunks if getattr(choice, "token_ids", None)]
        return "".join(text or "" for text in said), counts

    text, counts = texts()
    assert sum(counts) == 20
    for interval in (1, 7, 500):
        again, nums = texts(stream_interval=interval)
        assert again == text and sum(nums) == 20
        # A client that is late gets more at a time; the first goes out at once, the last ends it.
        assert all(num >= interval for num in nums[1:-1])
        assert len(nums) <= 2 + 19 // interval
    with pytest.raises(openai.BadRequestError, match="needs stream to be true") as raised:
        made.create(**ask, extra_body={"stream_interval": 2})
    assert raised.value.param == "stream_interval"


def test_an_output_that_repeats_itself_ends(server: Any) -> None:
    client = server.client()
    asked = {"max_pattern_size": 2, "min_count": 3}
    same = {"ignore_eos": True, "logit_bias": {"50": 100}}
    whole = client.chat.completions.create(**CHAT, extra_body={**same, "repetition_detection": asked}).choices[0]
    assert (whole.finish_reason, whole.model_extra["stop_reason"]) == ("repetition", "repetition_detected")
    text = {**CHAT, "prompt": "Once"}
    del text["messages"]
    *_, last = client.completions.create(**text, stream=True, extra_body={**same, "repetition_detection": asked})
    assert last.choices[0].finish_reason == "repetition"
    for nothing in (None, {}, {"max_pattern_size": 0}):
        got = client.completions.create(**text, extra_body={**same, "repetition_detection": nothing})
        assert got.choices[0].finish_reason == "length" and got.usage.completion_tokens == 20
    for wrong, words in (({"min_count": 1, "max_pattern_size": 2}, "min_count=1"), ({"size": 1}, "holds 'size'")):
        with pytest.raises(openai.BadRequestError, match=words) as raised:
            client.completions.create(**text, extra_body={"repetition_detection": wrong})
        assert raised.value.param == "repetition_detection"


def test_a_response_leaves_thoughts_out_and_counts_them(thinker: Any) -> None:
    client = thinker.client()
    told = client.responses.create(**RESPONSE, extra_body=THINKING)
    silent = client.responses.create(**RESPONSE, extra_body={**THINKING, "include_reasoning": False})
    assert [item.type for item in told.output] == ["reasoning", "message"]
    assert [item.type for item in silent.output] == ["message"]
    assert silent.output_text == told.output_text and silent.usage == told.usage
    assert told.usage.output_tokens_details.reasoning_tokens > 0
    events = list(client.responses.create(**RESPONSE, stream=True, extra_body={**THINKING, "include_reasoning": False}))
    assert not any("reasoning" in event.type for event in events)
    assert events[-1].response.usage == told.usage


def test_a_response_has_the_id_that_the_caller_gives(server: Any) -> None:
    client = server.client()
    made = client.responses.create(**RESPONSE, extra_body={"request_id": "mine"})
    assert made.id == "resp-mine" and client.responses.retrieve("resp-mine").output_text == made.output_text
    with pytest.raises(openai.BadRequestError, match="response that is stored") as raised:
        client.responses.create(**RESPONSE, extra_body={"request_id": "mine"})
    assert raised.value.param == "request_id"
    assert client.responses.retrieve("resp-mine").output_text == made.output_text
    first = client.responses.create(**RESPONSE, extra_headers={"x-request-id": "a-proxys"})
    again = client.responses.create(**RESPONSE, extra_headers={"x-request-id": "a-proxys"})
    assert first.id == "resp-a-proxys" and again.id not in (first.id, made.id) and again.id.startswith("resp-")


def test_special_tokens_of_a_response_are_text_where_they_are_wanted(server: Any) -> None:
    (end,) = server.http.post("/tokenize", json={"prompt": "<|endoftext|>", "add_special_tokens": False}).json()[
        "tokens"
    ]
    body = {"logit_bias": {str(end): 100}, "ignore_eos": True}
    ask = {**RESPONSE, "max_output_tokens": 2}
    client = server.client()
    assert client.responses.create(**ask, extra_body=body).output_text == ""
    shown = client.responses.create(**ask, extra_body={**body, "skip_special_tokens": False})
    assert shown.output_text == "<|endoftext|>" * 2


def test_messages_have_the_templates_variables_and_a_salt(thinker: Any) -> None:
    ask = {**CHAT, "max_tokens": 8}
    plain = thinker.http.post("/v1/messages", json=ask).json()
    thinking = thinker.http.post("/v1/messages", json={**ask, "chat_template_kwargs": {"think": True}}).json()
    assert [block["type"] for block in plain["content"]] == ["text"]
    assert [block["type"] for block in thinking["content"]] == ["thinking"]
    counted = {name: CHAT[name] for name in ("model", "messages")}
    num = thinker.http.post("/v1/messages/count_tokens", json=counted).json()["input_tokens"]
    more = {**counted, "chat_template_kwargs": {"think": True}}
    assert thinker.http.post("/v1/messages/count_tokens", json=more).json()["input_tokens"] > num
    got = thinker.http.post("/v1/messages", json={**ask, "chat_template_kwargs": {"other": 1}})
    assert got.status_code == 400 and "--chat-template-kwarg" in got.text
    long = {**ask, "messages": [{"role": "user", "content": "The dog ran home. " * 30}]}
    found = [
        thinker.http.post("/v1/messages", json={**long, "cache_salt": salt}).json()["usage"]["cache_read_input_tokens"]
        for salt in ("a", "a", "b", "b")
    ]
    assert found[0] == found[2] == 0 and found[1] > 0 and found[3] > 0


def test_the_id_of_a_message_is_a_proxys(server: Any) -> None:
    made = server.http.post("/v1/messages", json={**CHAT, "max_tokens": 2}, headers={"x-request-id": "a-proxys"})
    assert made.json()["id"] == made.headers["request-id"] == "msg-a-proxys"


@pytest.mark.parametrize(
    "fields",
    [
        {"watermarking": False},
        {"kv_transfer_params": {}},
        {"vllm_xargs": {}},
        {"session_id": "one"},
    ],
    ids=str,
)
def test_neutral_values_of_vllm_ask_for_nothing(server: Any, fields: dict[str, Any]) -> None:
    assert server.http.post("/v1/responses", json={**RESPONSE, **fields}).status_code == 200
    assert server.http.post("/v1/chat/completions", json={**CHAT, **fields}).status_code == 200
    if "session_id" not in fields:
        got = server.http.post("/v1/responses", json={**RESPONSE, **{name: {"x": 1} for name in fields}})
        assert (got.status_code, got.json()["error"]["param"]) == (400, next(iter(fields)))


@pytest.mark.parametrize("as_ids", [False, True])
def test_tokens_that_are_named_are_told_of_at_each_place(server: Any, as_ids: bool) -> None:
    """As they are among all; whether they are likely or not."""
    named = [50, 3999, 7, 50]
    ask = {**CHAT, "max_tokens": 3, "logprobs": True, "return_tokens_as_token_ids": as_ids}

    def told(**fields: Any) -> list[dict[str, Any]]:
        got = server.http.post("/v1/chat/completions", json={**ask, **fields})
        assert got.status_code == 200, got.text
        found: list[dict[str, Any]] = got.json()["choices"][0]["logprobs"]["content"]
        return found

    texts = [f"token_id:{token}" for token in set(named)]
    if not as_ids:
        texts = [server.http.post("/detokenize", json={"tokens": [token]}).json()["prompt"] for token in set(named)]
    everything, only = told(top_logprobs=20), told(logprob_token_ids=named)
    assert [each["token"] for each in only] == [each["token"] for each in everything]
    for each in only:
        assert sorted(top["token"] for top in each["top_logprobs"]) == sorted(texts)
        values = [top["logprob"] for top in each["top_logprobs"]]
        assert values == sorted(values, reverse=True) and all(value < 0 for value in values)
    best = everything[1]["top_logprobs"]
    ids = server.http.post("/tokenize", json={"prompt": best[0]["token"], "add_special_tokens": False}).json()["tokens"]
    if not as_ids and len(ids) == 1:
        again = told(logprob_token_ids=[*ids, *named], top_logprobs=2)
        assert again[1]["top_logprobs"][0] == best[0] and len(again[1]["top_logprobs"]) == 4


def test_named_tokens_of_a_completion(server: Any) -> None:
    ask = {"model": "story", "prompt": "Once upon a time", "max_tokens": 2, "temperature": 0}
    ask |= {"return_tokens_as_token_ids": True}
    got = server.http.post("/v1/completions", json={**ask, "logprobs": 0, "logprob_token_ids": [50, 3999]}).json()
    whole = server.http.post("/v1/completions", json={**ask, "logprobs": 5}).json()["choices"][0]["logprobs"]
    logprobs = got["choices"][0]["logprobs"]
    assert logprobs["tokens"] == whole["tokens"] and logprobs["token_logprobs"] == whole["token_logprobs"]
    for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True):
        assert set(top) == {"token_id:50", "token_id:3999", token}
    sampled = {**ask, "temperature": 1, "seed": 4, "logprobs": 0}
    drawn = [
        server.http.post("/v1/completions", json={**sampled, **more}).json()["choices"][0]["text"]
        for more in ({}, {"logprob_token_ids": [50]})
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [
        ("chat/completions", {"logprob_token_ids": [5]}, "needs logprobs"),
        ("chat/completions", {"logprob_token_ids": [4096], "logprobs": True}, "outside the vocabulary"),
        ("chat/completions", {"logprob_token_ids": [5] * 129, "logprobs": True}, "at most 128"),
        ("completions", {"logprob_token_ids": [5]}, "needs logprobs"),
        ("completions", {"logprob_token_ids": [5], "logprobs": 0, "use_beam_search": True, "n": 2}, "beam search"),
    ],
)
def test_what_cannot_be_told_of_is_a_400(server: Any, path: str, fields: dict[str, Any], words: str) -> None:
    base = {**CHAT, "prompt": "Once"}
    del base["messages" if path == "completions" else "prompt"]
    got = server.http.post(f"/v1/{path}", json={**base, **fields})
    assert got.status_code == 400 and got.json()["error"]["param"] == "logprob_token_ids" and words in got.text


def test_the_text_of_the_prompt_is_told_once(thinker: Server) -> None:
    ask = {"messages": CHAT["messages"], "max_tokens": 4, "temperature": 0, "return_prompt_text": True}
    whole = thinker.http.post("/v1/chat/completions", json=ask).json()
    assert "prompt_token_ids" not in whole
    ids = thinker.http.post("/tokenize", json={"messages": CHAT["messages"]}).json()["tokens"]
    asked = {"prompt": whole["prompt_text"], "add_special_tokens": False}
    assert thinker.http.post("/tokenize", json=asked).json()["tokens"] == ids
    client = thinker.client()
    chunks = list(client.chat.completions.create(model="story", stream=True, **ask_body(ask)))
    told = [chunk.model_extra.get("prompt_text") for chunk in chunks]
    assert told[0] == whole["prompt_text"] and not any(told[1:])
    bad = {"messages": [CHAT["messages"]], "return_prompt_text": True}
    refused = thinker.http.post("/v1/chat/completions/batch", json=bad)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "return_prompt_text")


def ask_body(ask: dict[str, Any]) -> dict[str, Any]:
    """The same for the client, which knows some of the fields."""
    known = {name: ask[name] for name in ("messages", "max_tokens", "temperature")}
    return {**known, "extra_body": {name: value for name, value in ask.items() if name not in known}}


def test_a_stream_that_waits_sends_comments_when_told_to(start: Any, open_stream: Any) -> None:
    server = start("--sse-keep-alive-interval", "0.05", is_poisoned=True)
    server.gate.hold(1)
    connection = open_stream(server, {"prompt": "Once", "max_tokens": 3, "stream": True})
    wait_until(server.gate.is_holding, server)
    got = b""
    while got.count(b": keep-alive\n\n") < 3:
        got += connection.recv(1 << 16)
    assert b"HTTP/1.1 200" in got and b"[DONE]" not in got
    server.gate.open()
    while b"[DONE]" not in got:
        got += connection.recv(1 << 16)
    server.gate.hold(1)
    with server.client().completions.create(model="story", prompt="Once", max_tokens=3, stream=True) as chunks:
        server.gate.open()
        assert sum(len(chunk.choices) for chunk in chunks) >= 1, "clients read over comments"
    server.gate.hold(1)
    asked = {"input": "Once", "max_output_tokens": 16, "background": True, "store": True}
    made, got = server.http.post("/v1/responses", json=asked).json(), b""
    with server.http.stream("GET", f"/v1/responses/{made['id']}?stream=true") as answer:
        for part in answer.iter_raw():
            got += part
            if got.count(KEEP_ALIVE) >= 3 and server.gate.is_closed():
                server.gate.open()
    assert b'"response.incomplete"' in got or b'"response.completed"' in got


def test_lines_of_json_have_no_comments() -> None:
    async def told(media: bytes) -> list[bytes]:
        sent, is_told = list[bytes](), asyncio.Event()

        async def put(events: bytes) -> None:
            sent.append(events)
            if len(sent) == 2:
                is_told.set()

        async def news() -> list[Any]:
            with suppress(TimeoutError):
                await asyncio.wait_for(is_told.wait(), 0.2)
            return ["news"]

        stream: Any = SimpleNamespace(media=media, put=put)
        generation: Any = SimpleNamespace(news=news)
        assert await _news(generation, stream, 0.01) == ["news"]
        return sent

    assert asyncio.run(told(EVENTS)) == [KEEP_ALIVE] * 2
    assert asyncio.run(told(b"application/x-ndjson")) == []
