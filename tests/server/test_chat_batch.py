"""Several conversations in one request: each has the choice that it has alone."""

from __future__ import annotations

from typing import Any

import pytest

TURNS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Once upon a time"}],
    [{"role": "system", "content": "A story."}, {"role": "user", "content": "The cat"}],
    [{"role": "user", "content": "The dog"}, {"role": "assistant", "content": "ran"}],
]
ASK: dict[str, Any] = {"model": "story", "max_tokens": 12, "temperature": 0, "logprobs": True, "top_logprobs": 2}
PATH = "/v1/chat/completions"


@pytest.mark.parametrize("more", [{}, {"return_token_ids": True}, {"temperature": 1, "seed": 5}])
def test_each_is_answered_as_alone(server: Any, more: dict[str, Any]) -> None:
    got = server.http.post(f"{PATH}/batch", json={**ASK, **more, "messages": TURNS}).json()
    alone = [server.http.post(PATH, json={**ASK, **more, "messages": each}).json() for each in TURNS]
    assert got["choices"] == [{**each["choices"][0], "index": place} for place, each in enumerate(alone)]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert got["usage"][name] == sum(each["usage"][name] for each in alone)
    assert got["object"] == "chat.completion" and "prompt_token_ids" not in got


def test_thoughts_and_forms(thinker: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": ["red", "blue"]}}}
    for more in ({"chat_template_kwargs": {"enable_thinking": True}}, {"response_format": form, "max_tokens": 60}):
        got = thinker.http.post(f"{PATH}/batch", json={**ASK, **more, "messages": TURNS[:2]}).json()
        alone = [thinker.http.post(PATH, json={**ASK, **more, "messages": each}).json() for each in TURNS[:2]]
        assert [each["message"] for each in got["choices"]] == [each["choices"][0]["message"] for each in alone]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"stream": True}, "stream", "goes with one conversation"),
        ({"n": 2}, "n", "goes with one conversation"),
        ({"use_beam_search": True}, "use_beam_search", "goes with one conversation"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "goes with one conversation"),
        ({"messages": []}, "messages", "length"),
        ({"messages": TURNS[0]}, "messages", "Expected `array`"),
        ({"messages": [TURNS[0]] * 129}, "messages", "at most 128"),
        ({"messages": [TURNS[0], [{"role": "user", "content": "a cat " * 600}]]}, "messages", "messages[1]: "),
        ({"temperature": -1}, "temperature", "temperature=-1"),
    ],
)
def test_what_is_refused(server: Any, change: dict[str, Any], param: str, words: str) -> None:
    got = server.http.post(f"{PATH}/batch", json={**ASK, "messages": TURNS, **change})
    assert got.status_code == 400 and got.json()["error"]["param"] == param, got.text
    assert words in got.json()["error"]["message"], got.text
