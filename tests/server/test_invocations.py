"""One route for whatever is asked: each body has the answer of its own route, errors included."""

from __future__ import annotations

from typing import Any

import pytest

from server_process import Server

CHAT = {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 4, "temperature": 0}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "Once", "max_tokens": 4, "temperature": 0}),
        ("/v1/embeddings", {"input": ["Once", "A cat"]}),
        ("/score", {"text_1": "a cat", "text_2": ["a dog", "rain"]}),
        ("/rerank", {"query": "a cat", "documents": ["a dog", "rain"]}),
        ("/v1/completions", {"prompt": "Once", "max_tokens": -1}),
        ("/v1/chat/completions", {**CHAT, "model": "nobody"}),
    ],
)
def test_it_is_answered_as_on_its_own_route(server: Server, route: str, body: dict[str, Any]) -> None:
    here, there = (server.http.post(path, json=body) for path in ("/invocations", route))

    def lasting(answer: dict[str, Any]) -> dict[str, Any]:
        """Without what differs from request to request."""
        return {name: value for name, value in answer.items() if name not in ("id", "created", "usage")}

    assert (here.status_code, lasting(here.json())) == (there.status_code, lasting(there.json()))


def test_a_stream_is_one(server: Server) -> None:
    with server.http.stream("POST", "/invocations", json={**CHAT, "stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[0].startswith("data: {") and lines[-1] == "data: [DONE]"


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b"{}", b'{"inputs": "a"}', b'{"query": "a"}'])
def test_what_is_nothing_that_is_answered(server: Server, body: bytes) -> None:
    answer = server.http.post("/invocations", content=body)
    assert answer.status_code == 400 and answer.json()["error"]["message"]
