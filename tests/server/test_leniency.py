"""What clients ask for that is more, or less, than is meant: it is taken as what can only be meant."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import pytest
import tokenizers

ASKS: dict[str, dict[str, Any]] = {
    "completions": {"prompt": "Once upon a time"},
    "chat/completions": {"messages": [{"role": "user", "content": "Once upon a time"}]},
    "responses": {"input": "Once upon a time"},
    "messages": {"messages": [{"role": "user", "content": "Once upon a time"}]},
}
LIMITS = {
    "completions": ["max_tokens"],
    "chat/completions": ["max_tokens", "max_completion_tokens"],
    "responses": ["max_output_tokens"],
    "messages": ["max_tokens"],
}
PAIRS = [(path, field) for path, fields in LIMITS.items() for field in fields]


@pytest.mark.parametrize(("path", "field"), PAIRS)
def test_an_output_longer_than_what_is_left_ends_with_the_context(server: Any, path: str, field: str) -> None:
    """As in vLLM: who asks need not know how long the prompt is. More than the whole context is a mistake."""
    ask = {"model": "story", "temperature": 0, "logit_bias": {"0": -100}, **ASKS[path], field: 512}
    if path == "messages":
        del ask["logit_bias"]
    got = server.http.post(f"/v1/{path}", json=ask)
    assert got.status_code == 200, got.text
    usage = got.json()["usage"]
    if path == "messages":
        assert got.json()["stop_reason"] in ("max_tokens", "end_turn")
        assert sum(usage[name] for name in ("input_tokens", "output_tokens", "cache_read_input_tokens")) <= 512
    else:
        assert usage["total_tokens"] == 512
    got = server.http.post(f"/v1/{path}", json={**ask, field: 513})
    assert got.status_code == 400 and "513 tokens is more than the model's context of 512" in got.text
    if path != "messages":
        assert (got.json()["error"]["param"], got.json()["error"]["code"]) == (field, "invalid_value")


def test_turns_are_left_out_for_the_room_that_is_asked_for(server: Any) -> None:
    """And the last one is not: then the context ends the answer."""
    said = [{"role": "user", "content": "The dog ran home. " * 40}, {"role": "assistant", "content": "So it was."}]
    ask = {"model": "story", "temperature": 0, "input": [*said, *said[:1]], "max_output_tokens": 250}

    def told(**fields: Any) -> tuple[int, int]:
        got = server.http.post("/v1/responses", json={**ask, **fields})
        assert got.status_code == 200, got.text
        usage = got.json()["usage"]
        return usage["input_tokens"], usage["output_tokens"]

    whole, shorter = told()[0], told(input=said[:1])[0]
    assert whole + 250 > 512 > shorter + 250
    assert told(truncation="auto")[0] == shorter
    num, answered = told(truncation="auto", max_output_tokens=512)
    assert num == shorter and num + answered <= 512


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_whole_numbers_with_a_point(server: Any, path: str) -> None:
    ask = {"model": "story", **ASKS[path], "max_tokens": 5, "temperature": 0.7, "seed": 3, "top_k": 40, "n": 2}
    written = {name: float(value) if isinstance(value, int) else value for name, value in ask.items()}
    answers = [server.http.post(f"/v1/{path}", json=each).json() for each in (ask, written)]
    assert answers[0]["choices"] == answers[1]["choices"] and answers[0]["usage"] == answers[1]["usage"]
    got = server.http.post(f"/v1/{path}", json={**ask, "max_tokens": 5.5})
    assert (got.status_code, got.json()["error"]["param"]) == (400, "max_tokens")


@pytest.mark.parametrize("path", ["completions", "chat/completions", "responses"])
def test_options_of_a_stream_that_ask_for_nothing_need_none(server: Any, path: str) -> None:
    ask = {"model": "story", **ASKS[path], LIMITS[path][0]: 2}
    for options in ({}, {"include_usage": None}, {"include_obfuscation": False}):
        got = server.http.post(f"/v1/{path}", json={**ask, "stream_options": options})
        assert got.status_code == 200, got.text
    got = server.http.post(f"/v1/{path}", json={**ask, "stream_options": {"include_usage": True}})
    assert (got.status_code, got.json()["error"]["param"]) == (400, "stream_options")


@pytest.mark.parametrize("path", [*ASKS, "embeddings"])
def test_an_empty_model_is_the_one_there_is(server: Any, path: str) -> None:
    ask = {"input": "a"} if path == "embeddings" else {**ASKS[path], LIMITS[path][0]: 2}
    got = server.http.post(f"/v1/{path}", json={**ask, "model": ""})
    assert got.status_code == 200 and got.json()["model"] == "story", got.text


@pytest.mark.parametrize(("path", "field"), [("chat/completions", "messages"), ("completions", "prompt")])
def test_a_field_that_is_missing_is_named(server: Any, path: str, field: str) -> None:
    error = server.http.post(f"/v1/{path}", json={"model": "story"}).json()["error"]
    assert (error["param"], error["code"]) == (field, "missing_required_parameter")


def test_the_seed_minus_one_is_none(server: Any) -> None:
    ask = {"model": "story", "prompt": "Once", "max_tokens": 60, "temperature": 1.5, "top_p": 1}
    texts = [
        server.http.post("/v1/completions", json={**ask, "seed": seed}).json()["choices"][0]["text"]
        for seed in (-1, -1, -2, -2)
    ]
    assert texts[0] != texts[1] and texts[2] == texts[3]


def test_no_end_comes_before_min_tokens_where_it_is_ignored(server: Any) -> None:
    """As in vLLM, so that a text that has to be long is not the beginning of another one."""
    ask = {"model": "story", "prompt": "Once", "max_tokens": 5, "temperature": 0, "return_token_ids": True}
    ask |= {"ignore_eos": True, "logit_bias": {"0": 100}}
    for least in (0, 3):
        got = server.http.post("/v1/completions", json={**ask, "min_tokens": least}).json()["choices"][0]
        assert [token == 0 for token in got["token_ids"]] == [place >= least for place in range(5)]


def test_names_of_tokens_are_the_vocabularys(server: Any) -> None:
    """So that a token is known that is no character alone, and a space that belongs to one."""
    text = "Once upon a time é 日本"
    path = files("albireo.models").joinpath("bundled/story/tokenizer.json")
    made = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")).encode(text)
    asked = {"prompt": text, "return_token_strs": True}
    told = server.http.post("/tokenize", json=asked).json()
    kept = told["token_strs"][-len(made.tokens) :]
    assert kept == made.tokens and told["tokens"][-len(made.ids) :] == made.ids
    assert "Ġupon" in kept
