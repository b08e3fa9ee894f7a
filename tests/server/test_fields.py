"""Every field of the protocols: as a null, in the value that vLLM's clients send unasked, and as what it asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params

from tool_asks import MESSAGES, TOOLS

COMPLETION: dict[str, Any] = {"model": "story", "prompt": "Once upon a time", "max_tokens": 3}
CHAT: dict[str, Any] = {"model": "story", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 3}
RESPONSE: dict[str, Any] = {"model": "story", "input": "Once", "max_output_tokens": 3}
BOTH = {"completions": COMPLETION, "chat/completions": CHAT}

#: Defaults of vLLM's requests, as its own client dumps them.
VLLM: dict[str, Any] = {
    "frequency_penalty": 0.0, "logit_bias": None, "n": 1, "presence_penalty": 0.0, "response_format": None,
    "seed": None, "stop": [], "stream": False, "stream_options": None, "temperature": None, "top_p": None, "user": None,
    "use_beam_search": False, "top_k": None, "min_p": None, "repetition_penalty": None, "length_penalty": 1.0,
    "stop_token_ids": [], "include_stop_str_in_output": False, "ignore_eos": False, "min_tokens": 0,
    "skip_special_tokens": True, "spaces_between_special_tokens": True, "truncate_prompt_tokens": None,
    "truncation_side": None, "prompt_logprobs": None, "allowed_token_ids": None, "bad_words": [], "echo": False,
    "structured_outputs": None, "priority": 0, "return_tokens_as_token_ids": None, "return_token_ids": None,
    "return_token_offsets": False, "cache_salt": None, "kv_transfer_params": None, "ec_transfer_params": None,
    "vllm_xargs": None, "repetition_detection": None, "thinking_token_budget": None, "best_of": 1, "guided_json": None,
    "guided_regex": None, "guided_choice": None, "guided_grammar": None, "guided_decoding_backend": None,
    "guided_whitespace_pattern": None,
}  # fmt: skip
VLLM_OF = {
    "completions": {**VLLM, "suffix": None, "logprobs": None, "prompt_embeds": None, "add_special_tokens": True},
    "chat/completions": {
        **VLLM, "logprobs": False, "top_logprobs": 0, "max_completion_tokens": None, "tools": None,
        "tool_choice": "none", "reasoning_effort": None, "include_reasoning": True, "parallel_tool_calls": True,
        "add_generation_prompt": True, "continue_final_message": False, "add_special_tokens": False, "documents": None,
        "chat_template": None, "chat_template_kwargs": None, "media_io_kwargs": None, "mm_processor_kwargs": None,
        "return_prompt_text": None, "return_assistant_tokens_mask": False,
    },
}  # fmt: skip
#: Field -> a value that asks for something there is.
ASKING: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "stop_token_ids": [1],
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "min_tokens": 2,
    "skip_special_tokens": False,
    "prompt_logprobs": 1,
    "allowed_token_ids": [5, 6],
    "bad_words": ["the"],
    "structured_outputs": {"choice": ["a", "b"]},
    "guided_json": {"type": "object"},
    "guided_regex": "a+",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'root ::= "a"',
    "cache_salt": "salt",
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "n": 2,
    "logit_bias": {"5": 1},
    "seed": 2**63 - 1,
    "response_format": {"type": "json_object"},
    "stop": ["x", "y"],
    "return_timings": True,
    "use_beam_search": True,
    "truncate_prompt_tokens": 2,
    "truncation_side": "right",
    "echo": True,
}


def post(server: Any, path: str, body: dict[str, Any]) -> None:
    got = server.http.post(f"/v1/{path}", json=body)
    assert got.status_code == 200, got.text


@pytest.mark.parametrize(
    ("path", "base", "known"),
    [
        ("completions", COMPLETION, completion_create_params.CompletionCreateParamsBase),
        ("chat/completions", CHAT, chat_create_params.CompletionCreateParamsBase),
        ("responses", RESPONSE, response_create_params.ResponseCreateParamsBase),
    ],
)
def test_a_null_in_any_field_of_openais_client(server: Any, path: str, base: dict[str, Any], known: Any) -> None:
    names = [name for name in known.__annotations__ if name not in base]
    assert len(names) > 10
    for name in names:
        post(server, path, {**base, name: None})
    post(server, path, {**base, **dict.fromkeys(names)})


@pytest.mark.parametrize("path", BOTH)
def test_defaults_of_vllms_requests(server: Any, path: str) -> None:
    for name, value in VLLM_OF[path].items():
        post(server, path, {**BOTH[path], name: value})
    post(server, path, {**BOTH[path], **VLLM_OF[path]})


@pytest.mark.parametrize(
    ("path", "field", "advice"),
    [
        ("completions", "max_new_tokens", "use max_tokens"),
        ("completions", "n_predict", "use max_tokens"),
        ("chat/completions", "num_ctx", "use --max-model-len where the server is started"),
        ("chat/completions", "enable_thinking", 'use chat_template_kwargs, as {"enable_thinking": false}'),
        ("completions", "enable_thinking", "leave it out"),
        ("chat/completions", "regex", "use structured_outputs.regex"),
        ("chat/completions", "mirostat", "leave it out"),
    ],
)
def test_what_other_servers_call_otherwise_is_told(server: Any, path: str, field: str, advice: str) -> None:
    got = server.http.post(f"/v1/{path}", json={**BOTH[path], field: 1})
    expected = f"'{field}' is not a field that is known here; {advice}"
    assert (got.status_code, got.json()["error"]["message"]) == (400, expected)


@pytest.mark.parametrize("path", BOTH)
def test_fields_that_ask_for_something(server: Any, path: str) -> None:
    for name, value in ASKING.items():
        post(server, path, {**BOTH[path], name: value})


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "Once", "chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs"),
        ({"prompt": "Once", "tools": TOOLS}, "tools"),
        ({"prompt": "Once", "continue_final_message": True}, "continue_final_message"),
        ({"messages": MESSAGES, "add_special_tokens": True}, "add_special_tokens"),
    ],
)
def test_tokenize_refuses_what_it_would_not_look_at(caller: Any, body: dict[str, Any], param: str) -> None:
    got = caller.http.post("/tokenize", json=body)
    assert (got.status_code, got.json()["error"]["param"]) == (400, param), got.text
    neutral = {"tools": [], "chat_template_kwargs": {}, "continue_final_message": False, "add_generation_prompt": True}
    assert caller.http.post("/tokenize", json={"prompt": "Once", **neutral, "add_special_tokens": True}).is_success
    assert caller.http.post("/tokenize", json={"messages": MESSAGES, "add_special_tokens": False}).is_success


def test_tools_count_in_tokenize(caller: Any) -> None:
    counted = caller.http.post("/tokenize", json={"messages": MESSAGES, "tools": TOOLS}).json()
    ask = {"messages": MESSAGES, "tools": TOOLS, "max_tokens": 1, "return_token_ids": True}
    assert counted["tokens"] == caller.http.post("/v1/chat/completions", json=ask).json()["prompt_token_ids"]


def test_prompts_are_cut_at_the_side_that_is_asked_for(server: Any) -> None:
    def ask(path: str = "completions", **fields: Any) -> Any:
        body = {**BOTH[path], "temperature": 0, "return_token_ids": True, **fields}
        return server.http.post(f"/v1/{path}", json=body)

    text = "The little dog ran to the park and saw a red ball. " * 3
    whole = ask(prompt=text).json()["choices"][0]["prompt_token_ids"]
    first, rest = whole[0], whole[1:]
    cut = ask(prompt=text, truncate_prompt_tokens=9, echo=True).json()
    choice = cut["choices"][0]
    assert choice["prompt_token_ids"] == [first, *rest[-8:]] and cut["usage"]["prompt_tokens"] == 9
    assert (
        choice["text"]
        == server.http.post("/detokenize", json={"tokens": rest[-8:]}).json()["prompt"]
        + ask(prompt=[first, *rest[-8:]]).json()["choices"][0]["text"]
    )
    plain = ask(prompt=text, truncate_prompt_tokens=9, add_special_tokens=False).json()["choices"][0]
    assert plain["prompt_token_ids"] == rest[-9:]
    ids = ask(prompt=[whole, rest[:3]], truncate_prompt_tokens=5).json()["choices"]
    assert [each["prompt_token_ids"] for each in ids] == [rest[-5:], rest[:3]]
    assert ids[0]["text"] == ask(prompt=rest[-5:]).json()["choices"][0]["text"]
    # as many as leave room
    long = rest * 40
    for fields, num in (({"max_tokens": 12}, 500), ({"max_tokens": None}, 496)):
        fitting = ask(prompt=long, truncate_prompt_tokens=-1, ignore_eos=True, **fields).json()
        assert fitting["usage"]["prompt_tokens"] == num and fitting["choices"][0]["finish_reason"] == "length"
    assert ask(prompt="word " * 40000, truncate_prompt_tokens=-1).status_code == 200
    assert ask(prompt="word " * 40000).json()["error"]["code"] == "context_length_exceeded"
    for side, kept in (("left", [first, *rest[-8:]]), ("right", whole[:9])):
        of_text = ask(prompt=text, truncate_prompt_tokens=9, truncation_side=side).json()["choices"][0]
        assert of_text["prompt_token_ids"] == kept
    messages = [{"role": "user", "content": text}]
    chat = ask("chat/completions", messages=messages).json()["prompt_token_ids"]
    short = ask("chat/completions", messages=messages, truncate_prompt_tokens=7).json()
    assert short["prompt_token_ids"] == chat[-7:]
    beginning = ask("chat/completions", messages=messages, truncate_prompt_tokens=7, truncation_side="right").json()
    assert beginning["prompt_token_ids"] == chat[:7]
    for fields, param in (
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 513}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": -1, "max_tokens": 512}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 5, "truncation_side": "middle"}, "truncation_side"),
    ):
        got = ask(**fields)
        assert (got.status_code, got.json()["error"]["param"]) == (400, param), got.text


def test_a_chat_says_again_what_it_goes_on_with(server: Any) -> None:
    messages = [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": "Once upon a time"}]
    ask = {**CHAT, "messages": messages, "continue_final_message": True, "temperature": 0, "n": 2, "max_tokens": 5}

    def said(**fields: Any) -> list[str]:
        got = server.http.post("/v1/chat/completions", json={**ask, **fields})
        assert got.status_code == 200, got.text
        if not fields.get("stream"):
            return [each["message"]["content"] for each in got.json()["choices"]]
        texts = ["", ""]
        for line in got.text.splitlines():
            if line.startswith("data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    texts[choice["index"]] += choice["delta"].get("content") or ""
        return texts

    plain = said()
    expected = ["Once upon a time" + text for text in plain]
    assert plain[0] and said(echo=True) == said(echo=True, stream=True) == expected
    parts = [messages[0], {"role": "assistant", "content": [{"type": "text", "text": "Once upon a time"}]}]
    assert said(echo=True, messages=parts) == expected
    asked = {**ask, "messages": messages[:1], "continue_final_message": False, "echo": True}
    got = server.http.post("/v1/chat/completions", json=asked).json()
    assert "Tell me" not in got["choices"][0]["message"]["content"], "it is not the model's"


def test_a_request_brings_a_template_and_documents_where_it_may(server: Any, start: Any) -> None:
    template = "{% for d in documents or [] %}{{ d.title }} {% endfor %}{{ messages[0].content }} ball"
    ask = {**CHAT, "return_token_ids": True}
    for fields, param in (
        ({"chat_template": template}, "chat_template"),
        ({"documents": [{"title": "a"}]}, "documents"),
    ):
        got = server.http.post("/v1/chat/completions", json={**ask, **fields})
        assert (got.status_code, got.json()["error"]["param"]) == (400, param), got.text
    assert server.http.post("/v1/chat/completions", json={**ask, "documents": []}).status_code == 200
    trusting = start("--trust-request-chat-template")

    def text(**fields: Any) -> str:
        got = trusting.http.post("/v1/chat/completions", json={**ask, **fields})
        assert got.status_code == 200, got.text
        ids = got.json()["prompt_token_ids"]
        if "documents" not in fields:
            told = {"messages": ask["messages"], **fields}
            assert trusting.http.post("/tokenize", json=told).json()["tokens"] == ids
        return str(trusting.http.post("/detokenize", json={"tokens": ids}).json()["prompt"]).strip()

    assert text(chat_template=template) == "Once ball"
    assert text(chat_template=template, documents=[{"title": "The"}, {"title": "red"}]) == "The red Once ball"
    ask["messages"] = [{"role": "developer", "content": "Be kind."}, *CHAT["messages"]]
    roles = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}"
    assert text(chat_template=roles) == "system: Be kind. user: Once"
    knowing = "{% if messages[0].role == 'developer' %}The developer says {% endif %}" + roles
    assert text(chat_template=knowing) == "The developer says developer: Be kind. user: Once"
    bad = trusting.http.post("/v1/chat/completions", json={**ask, "chat_template": "{% if"})
    assert bad.status_code == 400 and bad.json()["error"]["code"] == "invalid_chat"
    endless = "{% for i in range(10**9) %}x{% endfor %}"
    assert trusting.http.post("/v1/chat/completions", json={**ask, "chat_template": endless}).status_code == 400
