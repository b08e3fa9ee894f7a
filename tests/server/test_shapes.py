"""Answers, chunks and events are what openai's types say; its client is lenient, and takes anything for them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pydantic
import pytest
from openai.types import Batch, Completion, CreateEmbeddingResponse, FileObject, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from tool_asks import MESSAGES, SCHEMAS

SCHEMA = SCHEMAS["clock"]
TOOL: dict[str, Any] = {"name": "clock", "description": "…", "parameters": SCHEMA}
CHAT: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 6}
COMPLETION: dict[str, Any] = {"model": "story", "prompt": "Once", "max_tokens": 6}
RESPONSE: dict[str, Any] = {"model": "story", "input": "Once", "max_output_tokens": 6}
LONG = {"max_tokens": 200}
ASKS: list[tuple[str, dict[str, Any], Any, Any]] = [
    *(
        ("chat/completions", {**CHAT, **more}, ChatCompletion, ChatCompletionChunk)
        for more in (
            {},
            {"logprobs": True, "top_logprobs": 2, "n": 2},
            {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required", **LONG},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, **LONG},
        )
    ),
    *(("completions", {**COMPLETION, **more}, Completion, None) for more in ({}, {"n": 2}, {"logprobs": 2})),
    *(
        ("responses", {**RESPONSE, **more}, Response, ResponseStreamEvent)
        for more in (
            {},
            {"instructions": "x", "metadata": {"a": "b"}, "store": False, "user": "me", "truncation": "auto"},
            {"tools": [{"type": "function", **TOOL}], "tool_choice": "required", "max_output_tokens": 200},
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}, "max_output_tokens": 200},
            {"background": True},
        )
    ),
]


@cache
def checker(kind: Any) -> Any:
    return pydantic.TypeAdapter(kind)  # of all events it takes a second


def check(kind: Any, value: Any) -> None:
    checker(kind).validate_python(value)


@pytest.mark.parametrize(("path", "body", "whole", "piece"), ASKS, ids=range(len(ASKS)))
def test_whole_and_in_pieces(caller: Any, path: str, body: dict[str, Any], whole: Any, piece: Any) -> None:
    got = caller.http.post(f"/v1/{path}", json=body)
    assert got.status_code == 200, got.text
    check(whole, got.json())
    if piece is None:
        return  # the type of a chunk is that of the answer, which says that there is always a finish_reason
    text = caller.http.post(f"/v1/{path}", json={**body, "stream": True}).text
    said = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert said  # as many as the client keeps up with
    for each in said:
        check(piece, each)


def test_what_is_no_text(server: Any, start: Any, tmp_path: Any) -> None:
    check(CreateEmbeddingResponse, server.http.post("/v1/embeddings", json={"input": ["a", "b"]}).json())
    for model in server.http.get("/v1/models").json()["data"]:
        check(Model, model)
    http = start("--batch-dir", str(tmp_path)).http
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}
    file = {"file": ("a.jsonl", json.dumps(line).encode())}
    made = http.post("/v1/files", files=file, data={"purpose": "batch"}).json()
    check(FileObject, made)
    ask = {"input_file_id": made["id"], "endpoint": line["url"], "completion_window": "24h"}
    batch = http.post("/v1/batches", json=ask).json()
    check(Batch, batch)
    check(Batch, http.get(f"/v1/batches/{batch['id']}").json())
