"""Tokens in, tokens out, and requests rendered as tokens: together they say what the routes of texts say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server_process import Server

CHAT = {"messages": [{"role": "user", "content": "Tell me of a fox."}], "max_tokens": 12, "seed": 7}
GENERATE = "/inference/v1/generate"


def post(server: Server, path: str, ask: Any, status: int = 200) -> Any:
    answer = server.http.post(path, json=ask)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"temperature": 0, "stop": ["a"], "logit_bias": {"17": 2}},
        {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "n": 2, "bad_words": ["the"]},
        {"structured_outputs": {"regex": "[a-c]{3}"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [1, 2]}}}},
        {"repetition_detection": {"max_pattern_size": 3, "min_count": 2}, "ignore_eos": True, "min_tokens": 3},
    ],
)
def test_a_rendered_chat_is_answered_as_the_chat(server: Server, beside: dict[str, Any]) -> None:
    ask = {**CHAT, **beside}
    rendered = post(server, "/v1/chat/completions/render", ask)
    assert rendered["token_ids"] == post(server, "/tokenize", {"messages": CHAT["messages"]})["tokens"]
    made = post(server, GENERATE, rendered)
    said = post(server, "/v1/chat/completions", {**ask, "return_token_ids": True})
    told = [(each["token_ids"], each["finish_reason"], each["stop_reason"]) for each in made["choices"]]
    assert told == [(each["token_ids"], each["finish_reason"], each["stop_reason"]) for each in said["choices"]]
    assert made["usage"]["completion_tokens"] == said["usage"]["completion_tokens"]
    assert (made["output_mode"], "text" in made["choices"][0]) == ("tokens", False)


def test_each_prompt_of_a_completion_is_rendered(server: Server) -> None:
    ask = {"prompt": ["Once", "The cat"], "max_tokens": 5, "temperature": 0}
    rendered = post(server, "/v1/completions/render", {**ask, "request_id": "two"})
    assert [each["request_id"] for each in rendered] == ["cmpl-two-0", "cmpl-two-1"]
    said = post(server, "/v1/completions", ask)
    made = [post(server, GENERATE, {**each, "output_mode": "text"}) for each in rendered]
    assert [each["choices"][0]["text"] for each in made] == [each["text"] for each in said["choices"]]


def test_messages_are_rendered(server: Server) -> None:
    ask = {"model": "story", "max_tokens": 5, "messages": CHAT["messages"]}
    rendered = post(server, "/v1/messages/render", ask)
    assert rendered["token_ids"] == post(server, "/tokenize", {"messages": CHAT["messages"]})["tokens"]
    assert rendered["sampling_params"]["max_tokens"] == 5


def test_what_is_not_said_is_neutral_and_goes_to_the_end_of_the_context(server: Server) -> None:
    made = post(server, GENERATE, {"token_ids": [5] * 500, "sampling_params": {"ignore_eos": True, "seed": 1}})
    assert made["usage"]["completion_tokens"] == 12, "the context has 512"
    assert "prompt_token_ids" not in made
    ask = {"prompt": [5] * 500, "seed": 1, "ignore_eos": True, "return_token_ids": True, "max_tokens": 12}
    plain = post(server, "/v1/completions", ask | {"temperature": 1, "top_p": 1, "top_k": 0, "repetition_penalty": 1})
    assert made["choices"][0]["token_ids"] == plain["choices"][0]["token_ids"]


def test_log_probabilities_are_those_of_completions(server: Server) -> None:
    sampling = {"temperature": 0, "max_tokens": 4, "logprobs": 3, "prompt_logprobs": 1}
    ids = post(server, "/tokenize", {"prompt": "Once upon"})["tokens"]
    ask = {"token_ids": ids, "sampling_params": sampling, "return_token_ids": True}
    made = post(server, GENERATE, ask)
    said = post(server, "/v1/completions", {"prompt": ids, **sampling})["choices"][0]
    content = made["choices"][0]["logprobs"]["content"]
    assert [each["logprob"] for each in content] == said["logprobs"]["token_logprobs"]
    for each, top in zip(content, said["logprobs"]["top_logprobs"], strict=True):
        assert each["token_id"] == each["top_logprobs"][0]["token_id"]
        assert [one["rank"] for one in each["top_logprobs"]] == [1, 2, 3]
        assert sorted(one["logprob"] for one in each["top_logprobs"]) == sorted(top.values())
    assert made["prompt_logprobs"] == said["prompt_logprobs"] and made["prompt_token_ids"] == ids
    text = post(server, GENERATE, {**ask, "output_mode": "text"})["choices"][0]
    assert [each["logprob"] for each in text["logprobs"]["content"]] == said["logprobs"]["token_logprobs"]
    assert text["text"] == said["text"]


def test_a_stream_says_what_the_whole_says(server: Server) -> None:
    sampling = {"seed": 3, "max_tokens": 9, "n": 2, "logprobs": 0}
    ask = {"token_ids": [9, 10, 11], "sampling_params": sampling, "output_mode": "text", "return_token_ids": True}
    whole = post(server, GENERATE, ask)
    options = {"include_usage": True, "continuous_usage_stats": True}
    lines = server.http.post(GENERATE, json={**ask, "stream": True, "stream_options": options}).text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert [chunk.get("prompt_token_ids") for chunk in chunks if "prompt_token_ids" in chunk] == [[9, 10, 11]]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == whole["usage"]
    assert all(chunk["usage"]["prompt_tokens"] == 3 for chunk in chunks)
    for index, choice in enumerate(whole["choices"]):
        parts = [each for chunk in chunks for each in chunk["choices"] if each["index"] == index]
        assert [token for part in parts for token in part["token_ids"]] == choice["token_ids"]
        assert "".join(part["text"] for part in parts) == choice["text"]
        assert parts[-1]["finish_reason"] == choice["finish_reason"]


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        ({"token_ids": []}, "token_ids"),
        ({"token_ids": [1 << 20]}, "prompt"),
        ({"token_ids": [-1]}, "token_ids"),
        ({"token_ids": "x"}, "token_ids"),
        ({"features": {"mm_hashes": {}}}, "features"),
        ({"content_parts": [{}]}, "content_parts"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"output_mode": "both"}, "output_mode"),
        ({"sampling_params": {"temperature": "hot"}}, "sampling_params"),
        ({"sampling_params": {"max_tokens": 0}}, "sampling_params"),
        ({"sampling_params": {"colour": 1}}, "sampling_params"),
        ({"sampling_params": {"extra_args": {"a": 1}}}, "sampling_params.extra_args"),
        ({"sampling_params": []}, "sampling_params"),
        ({"model": "other"}, "model"),
    ],
)
def test_what_is_refused_is_named(server: Server, ask: dict[str, Any], param: str) -> None:
    full = {"token_ids": [1, 2], "sampling_params": {}, **ask}
    error = post(server, GENERATE, full, 404 if "model" in ask else 400)["error"]
    assert error["param"] == param, error


def test_a_beam_search_and_a_chat_that_is_none_are_not_rendered(server: Server) -> None:
    assert post(server, "/v1/chat/completions/render", {**CHAT, "use_beam_search": True}, 400)["error"]["param"] == (
        "use_beam_search"
    )
    assert post(server, "/v1/chat/completions/render", {"messages": [{"role": "?"}]}, 400)
