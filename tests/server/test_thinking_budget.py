"""thinking_token_budget through the server: kept to the token, with whatever else is asked, and across a dead engine.

The bundled model never learnt to think: its thoughts go on unless they are ended. Its marks are several tokens.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2 as httpx
import openai
import pytest

from tool_asks import CLOCK, MESSAGES, TOOLS

CHAT: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 60, "temperature": 1.0, "seed": 3}
THINK = {"chat_template_kwargs": {"think": True}}
MARK = "</think>"


def count(server: Any, text: str) -> int:
    return int(server.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["count"])


def chat(server: Any, **changes: Any) -> dict[str, Any]:
    got = server.http.post("/v1/chat/completions", json={**CHAT, **THINK, "return_token_ids": True, **changes})
    assert got.status_code == 200, got.text
    found: dict[str, Any] = got.json()
    return found


@pytest.mark.parametrize("budget", [0, 1, 7, 30])
def test_thoughts_are_as_long_as_the_budget(thinker: Any, budget: int) -> None:
    free = chat(thinker, ignore_eos=True)["choices"][0]
    assert not free["message"].get("content") and free["finish_reason"] == "length"
    end = thinker.http.post("/tokenize", json={"prompt": MARK, "add_special_tokens": False}).json()["tokens"]
    for choice in chat(thinker, thinking_token_budget=budget, n=3, ignore_eos=True)["choices"]:
        ids = choice["token_ids"]
        assert ids[budget : budget + len(end)] == end and len(ids) == 60
        assert choice["message"]["content"] and bool(choice["message"].get("reasoning")) == (budget > 0)
    first = chat(thinker, thinking_token_budget=budget, ignore_eos=True)["choices"][0]["token_ids"]
    assert first[:budget] == free["token_ids"][:budget]


@pytest.mark.parametrize("budget", [None, -1, 60, 2**31 - 1])
def test_a_budget_that_is_not_reached_changes_nothing(thinker: Any, budget: int | None) -> None:
    assert chat(thinker, thinking_token_budget=budget)["choices"] == chat(thinker)["choices"]


def test_what_does_not_think_is_not_touched(thinker: Any) -> None:
    off = {"chat_template_kwargs": {"think": False}}
    assert chat(thinker, thinking_token_budget=0, **off)["choices"] == chat(thinker, **off)["choices"]


@pytest.mark.parametrize(
    "form",
    [
        {"structured_outputs": {"regex": "[a-d]{4}"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CLOCK}}},
    ],
)
def test_a_form_follows_the_end(thinker: Any, form: dict[str, Any]) -> None:
    for temperature in (0.0, 1.0):
        (choice,) = chat(thinker, thinking_token_budget=9, max_tokens=200, temperature=temperature, **form)["choices"]
        content = choice["message"]["content"]
        assert choice["finish_reason"] == "stop", choice
        if "response_format" in form:
            assert set(json.loads(content)) == {"utc"}
        else:
            assert len(content) == 4 and set(content) <= set("abcd")


def test_a_call_follows_the_end(thinker: Any) -> None:
    changes = {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "clock"}}}
    (choice,) = chat(thinker, thinking_token_budget=9, max_tokens=200, **changes)["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert choice["message"]["reasoning"] and set(json.loads(call["function"]["arguments"])) == {"utc"}


def test_completions_responses_and_messages(thinker: Any) -> None:
    end = MARK
    ask = {"model": "story", "max_tokens": 40, "seed": 1, "thinking_token_budget": 6}
    for prompt in ("Once <think>", "<think>one</think> two <think>\nI see"):
        text = thinker.http.post("/v1/completions", json={**ask, "prompt": prompt}).json()["choices"][0]["text"]
        assert end in text and count(thinker, text.partition(end)[0]) == 6
    for prompt in ("Once", "<think>a</think>"):
        text = thinker.http.post("/v1/completions", json={**ask, "prompt": prompt}).json()["choices"][0]["text"]
        assert end not in text
    said = thinker.client().responses.create(
        model="story", input="Once", max_output_tokens=40, extra_body={**THINK, "seed": 1, "thinking_token_budget": 6}
    )
    assert [item.type for item in said.output] == ["reasoning", "message"]
    assert said.usage.output_tokens_details.reasoning_tokens in (5, 6)  # the text is encoded anew
    ask = {"model": "story", "messages": MESSAGES, "max_tokens": 40, "temperature": 1.0}
    said = thinker.http.post("/v1/messages", json={**ask, "thinking": {"type": "enabled", "budget_tokens": 6}}).json()
    assert [block["type"] for block in said["content"]] == ["thinking", "text"]
    assert 0 < count(thinker, said["content"][0]["thinking"]) < 15  # the text is encoded anew; free it takes all 40


def test_it_goes_on_as_it_would_have_when_the_engine_was_killed(thinker: Any) -> None:
    server, before = thinker, thinker.num_restarts()
    asks = [{**CHAT, "seed": seed, "max_tokens": 90, "thinking_token_budget": 9 * seed} for seed in range(7)]
    asks[5] |= {"n": 2}

    async def one(client: openai.AsyncOpenAI, ask: dict[str, Any]) -> dict[int, list[int]]:
        ids: dict[int, list[int]] = {}
        extra = {**THINK, "return_token_ids": True, "ignore_eos": True}
        extra["thinking_token_budget"] = ask.pop("thinking_token_budget")
        async for chunk in await client.chat.completions.create(**ask, extra_body=extra, stream=True):
            for choice in chunk.choices:
                ids.setdefault(choice.index, []).extend(getattr(choice, "token_ids", None) or [])
        return ids

    async def all_of(num_kills: int) -> list[dict[int, list[int]]]:
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=http)
            if num_kills:
                server.gate.hold(30)  # steps of each process; the requests take 90
            work = asyncio.gather(*(one(client, dict(ask)) for ask in asks))
            for _ in range(num_kills):
                await asyncio.to_thread(server.kill_held)
            server.gate.open()
            return await work

    assert asyncio.run(all_of(2)) == asyncio.run(all_of(0))
    assert server.num_restarts() == before + 2


@pytest.mark.parametrize("budget", [-2, 2**31, 2**63, 1e18, 1.5, "5", True, [5]])
def test_what_is_no_budget_is_refused(thinker: Any, budget: Any) -> None:
    for path, ask in (("chat/completions", CHAT), ("completions", {"model": "story", "prompt": "Once"})):
        got = thinker.http.post(f"/v1/{path}", json={**ask, "thinking_token_budget": budget})
        assert (got.status_code, got.json()["error"]["param"]) == (400, "thinking_token_budget"), got.text


def test_a_model_that_does_not_think_has_no_budget(server: Any) -> None:
    with pytest.raises(openai.BadRequestError, match="needs a model that thinks") as caught:
        server.client().chat.completions.create(**CHAT, extra_body={"thinking_token_budget": 5})
    assert caught.value.param == "thinking_token_budget"
