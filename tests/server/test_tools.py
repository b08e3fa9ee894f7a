"""Tool calls and reasoning over HTTP, with the real openai client: required and named calls by the bundled model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from albireo.server.generation import INLINE_TOKENS
from server_process import wait_until
from tiny_models import shared_data
from tool_asks import ASK, CLOCK, MESSAGES, NAMED, SCHEMAS, TEMPLATE, TOOLS


def check_calls(calls: Any) -> None:
    for call in calls:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
        assert call.type == "function" and call.id


def streamed(client: Any, **ask: Any) -> dict[str, Any]:
    """What the deltas of a stream add up to."""
    said: dict[str, Any] = {"content": "", "reasoning": "", "calls": {}, "finish": None}
    for chunk in client.chat.completions.create(**ask, stream=True):
        for choice in chunk.choices:
            delta = choice.delta
            said["content"] += delta.content or ""
            said["reasoning"] += getattr(delta, "reasoning_content", None) or ""
            assert getattr(delta, "reasoning", None) == getattr(delta, "reasoning_content", None)
            for call in delta.tool_calls or ():
                if call.index not in said["calls"]:
                    assert call.id and call.type == "function" and call.function.name
                    said["calls"][call.index] = [call.function.name, ""]
                else:
                    assert call.id is None and call.function.name is None
                said["calls"][call.index][1] += call.function.arguments
            said["finish"] = choice.finish_reason or said["finish"]
    return said


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("seed", range(3))
def test_a_call_that_is_asked_for_comes_and_fits(caller: Any, choice: Any, seed: int) -> None:
    client = caller.client()
    ask = {**ASK, "tool_choice": choice, "seed": seed, "parallel_tool_calls": False}
    (whole,) = client.chat.completions.create(**ask).choices
    assert whole.finish_reason == "tool_calls" and whole.message.content is None
    (call,) = whole.message.tool_calls
    check_calls([call])
    assert choice == "required" or call.function.name == "clock"
    said = streamed(client, **ask)
    assert said["finish"] == "tool_calls" and said["content"] == ""
    assert said["calls"] == {0: [call.function.name, call.function.arguments]}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def test_only_tools_that_are_allowed_are_called_and_all_are_shown(caller: Any) -> None:
    client = caller.client()
    ask = {**ASK, "parallel_tool_calls": False, "extra_body": {"return_token_ids": True}}
    free = client.chat.completions.create(**{**ask, "max_tokens": 1}, tool_choice="auto")
    for seed in range(3):
        made = client.chat.completions.create(**ask, tool_choice=allowed("required", "clock"), seed=seed)
        (call,) = made.choices[0].message.tool_calls
        assert call.function.name == "clock" and made.prompt_token_ids == free.prompt_token_ids
        check_calls([call])
    (choice,) = client.chat.completions.create(**{**ask, "max_tokens": 8}, tool_choice=allowed("auto", "clock")).choices
    assert choice.message.content and choice.finish_reason == "length"


def test_several_calls(caller: Any) -> None:
    client = caller.client()
    nums = set()
    for seed in range(3):
        said = streamed(client, **ASK, tool_choice="required", seed=seed)
        nums.add(len(said["calls"]))
        assert sorted(said["calls"]) == list(range(len(said["calls"])))
        if said["finish"] == "tool_calls":
            for name, arguments in said["calls"].values():
                jsonschema.validate(json.loads(arguments), SCHEMAS[name])
    assert max(nums) > 1


def test_a_call_and_its_answer_go_into_the_conversation(caller: Any) -> None:
    client = caller.client()
    (choice,) = client.chat.completions.create(**ASK, tool_choice=NAMED, seed=1).choices
    told = {"role": "tool", "tool_call_id": choice.message.tool_calls[0].id, "content": "noon"}
    messages = [*MESSAGES, choice.message.model_dump(exclude_none=True), told]
    ask = {**ASK, "messages": messages, "max_tokens": 8, "extra_body": {"return_token_ids": True}}
    made = client.chat.completions.create(**ask, seed=1)
    (answer,) = made.choices
    prompt = caller.http.post("/detokenize", json={"tokens": made.prompt_token_ids}).json()["prompt"]
    written = re.search(r"<tool_call>clock ?(.*)</tool_call>\s*noon", prompt)
    assert written, prompt
    assert json.loads(written[1]) == json.loads(choice.message.tool_calls[0].function.arguments)
    assert answer.message.content and answer.finish_reason == "length" and not answer.message.tool_calls


def test_auto_and_none_leave_the_model_free(caller: Any) -> None:
    client = caller.client()
    for choice in ("auto", "none", None):
        extra = {} if choice is None else {"tool_choice": choice}
        (found,) = client.chat.completions.create(**{**ASK, "max_tokens": 8}, seed=1, **extra).choices
        assert found.message.content and not found.message.tool_calls and found.finish_reason == "length"


def test_an_answer_of_a_form_or_calls(caller: Any) -> None:
    """response_format beside tools: the one or the other."""
    client = caller.client()
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [17, 23]}}}
    kinds = set()
    for seed in range(4):
        ask = {**ASK, "seed": seed, "extra_body": {"chat_template_kwargs": {"think": False}}}
        (found,) = client.chat.completions.create(**ask, response_format=form).choices
        if found.message.tool_calls:
            check_calls(found.message.tool_calls if found.finish_reason == "tool_calls" else ())
        elif found.finish_reason == "stop":
            assert found.message.content.strip() in ("17", "23")
        kinds.add(bool(found.message.tool_calls))
    assert kinds


def test_reasoning_is_told_apart(thinker: Any) -> None:
    client = thinker.client()
    body = {"chat_template_kwargs": {"think": True}, "structured_outputs": {"regex": "[a-d]{4}"}}
    ask = {key: value for key, value in ASK.items() if key != "tools"} | {"max_tokens": 400, "seed": 3}
    said = streamed(client, **ask, extra_body={**body, "logit_bias": bias(thinker, "</")})
    (whole,) = client.chat.completions.create(**ask, extra_body={**body, "logit_bias": bias(thinker, "</")}).choices
    assert whole.message.reasoning_content == whole.message.reasoning == said["reasoning"] != ""
    assert (whole.message.content or "") == said["content"]
    assert whole.finish_reason == "length" or re.fullmatch("[a-d]{4}", said["content"])
    hidden = client.chat.completions.create(
        **{**ask, "max_tokens": 30}, extra_body={**body, "include_reasoning": False}
    )
    assert getattr(hidden.choices[0].message, "reasoning", None) is None


def test_thoughts_are_counted_told_or_not(thinker: Any) -> None:
    client = thinker.client()
    body: dict[str, Any] = {"chat_template_kwargs": {"think": True}, "thinking_token_budget": 8}
    ask: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 20, "temperature": 0}
    made = client.chat.completions.create(**ask, extra_body=body)
    thought = {"prompt": made.choices[0].message.reasoning, "add_special_tokens": False}
    count = thinker.http.post("/tokenize", json=thought).json()["count"]
    assert made.usage.completion_tokens_details.reasoning_tokens == count > 0
    for more in ({}, {"include_reasoning": False}):
        options = {"stream": True, "stream_options": {"include_usage": True}}
        *_, last = client.chat.completions.create(**ask, **options, extra_body={**body, **more})
        assert last.usage == made.usage
    plain = client.chat.completions.create(**ask, extra_body={"chat_template_kwargs": {"think": False}})
    assert plain.usage.completion_tokens_details.reasoning_tokens == 0
    free = {**ask, "temperature": 1, "seed": 5}
    two = client.chat.completions.create(**free, n=2, extra_body={**body, "ignore_eos": True}).usage
    assert count < two.completion_tokens_details.reasoning_tokens < two.completion_tokens == 40


def test_thoughts_of_long_answers_are_counted_one_by_one(thinker: Any) -> None:
    """Streamed, the thoughts of several come mixed; whole, so many tokens are read in a thread."""
    body: dict[str, Any] = {"chat_template_kwargs": {"think": True}, "ignore_eos": True}
    ask: dict[str, Any] = {"model": "story", "messages": MESSAGES, "max_tokens": 260, "n": 8, "seed": 5}
    made = thinker.client().chat.completions.create(**ask, extra_body=body)
    thoughts = [choice.message.reasoning for choice in made.choices]
    asked = [{"prompt": thought, "add_special_tokens": False} for thought in thoughts if thought]
    count = sum(thinker.http.post("/tokenize", json=each).json()["count"] for each in asked)
    assert made.usage.completion_tokens == 8 * 260 > INLINE_TOKENS
    assert made.usage.completion_tokens_details.reasoning_tokens == count > 1000
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = thinker.client().chat.completions.create(**ask, **options, extra_body=body)
    assert last.usage == made.usage


def bias(server: Any, text: str) -> dict[str, float]:
    """Makes a model that never learnt to think come to the end of it."""
    ids = server.http.post("/tokenize", json={"prompt": text, "add_special_tokens": False}).json()["tokens"]
    return {str(token): 4.0 for token in ids}


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "often"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": 5}, "tool_choice"),
        ({"tool_choice": allowed("auto", "other")}, "tool_choice"),
        ({"tool_choice": allowed("auto")}, "tool_choice"),
        ({"tool_choice": allowed("often", "clock")}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]}, "tools"),
        ({"tools": [TOOLS[0], TOOLS[0]]}, "tools"),
        ({"tools": [5]}, "tools"),
        ({"tools": TOOLS * 100}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 300_000}}]}, "tools"),
        (
            {
                "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {"type": "null"}}}}],
                "tool_choice": "required",
            },
            "tools",
        ),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
    ],
)
def test_tools_that_are_none(caller: Any, change: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        caller.client().post("/chat/completions", body={**ASK, **change}, cast_to=object)
    assert raised.value.param == param


def test_a_killed_engine_finishes_its_call(caller: Any) -> None:
    server = caller
    schema = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 8, "maxItems": 10}
    tool = {"type": "object", "properties": {"names": schema}, "required": ["names"], "additionalProperties": False}
    ask = {**ASK, "tools": [{"type": "function", "function": {"name": "call", "parameters": tool}}], "seed": 5}
    ask |= {"tool_choice": "required", "parallel_tool_calls": False, "frequency_penalty": 0.3}
    client = server.client()
    whole = client.chat.completions.create(**ask).choices[0].message.tool_calls[0].function.arguments
    server.gate.hold(25)  # the call has begun, and 8 names take more
    with client.chat.completions.create(**ask, stream=True) as stream:
        server.kill_held()
        server.gate.open()
        chunks = list(stream)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(call.function.arguments for call in calls) == whole
    (prompt,) = server.http.get(f"/v1/requests/{chunks[0].id}/explain").json()["prompts"]
    assert prompt["num_restarts"] == 1


def test_the_format_of_a_real_template_is_found(start: Any, tmp_path: Path) -> None:
    """Mistral's: tags that are special tokens there are text here, and its parser reads what its form has written."""
    template = shared_data("tokenizers", "chat-templates", "mistral-v3.jinja")
    server = start("--chat-template", str(template))
    tools = [{"type": "function", "function": {"name": "clock", "description": "", "parameters": CLOCK}}]
    ask = {**ASK, "tools": tools, "tool_choice": "required", "seed": 2, "parallel_tool_calls": False, "max_tokens": 150}
    (whole,) = server.client().chat.completions.create(**ask).choices
    assert whole.finish_reason == "tool_calls"
    check_calls(whole.message.tool_calls)
    assert re.fullmatch("[a-zA-Z0-9]{9}", whole.message.tool_calls[0].id)


def test_a_map_as_zod_writes_it_is_among_the_arguments(caller: Any) -> None:
    ages = {"type": "object", "propertyNames": {"enum": ["fox", "owl"]}, "additionalProperties": {"enum": [1, 2]}}
    ages["required"] = ["fox", "owl"]
    schema = {"type": "object", "properties": {"ages": ages}, "required": ["ages"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "note", "parameters": schema}}
    made = caller.client().chat.completions.create(**{**ASK, "tools": [tool]}, tool_choice="required", seed=1)
    arguments = json.loads(made.choices[0].message.tool_calls[0].function.arguments)
    jsonschema.validate(arguments, schema)
    assert set(arguments["ages"]) == {"fox", "owl"}


@pytest.mark.parametrize("name", ["llama3_json", "qwen3_coder", "gemma4"])
def test_a_format_that_is_named_wins_over_the_template(start: Any, name: str) -> None:
    server = start("--tool-call-parser", name, "--reasoning-parser", "none")
    said = streamed(server.client(), **ASK, tool_choice=NAMED, seed=2)
    ((name, arguments),) = said["calls"].values()
    assert name == "clock" and said["finish"] == "tool_calls"
    jsonschema.validate(json.loads(arguments), CLOCK)


def test_a_model_without_a_format_calls_what_it_has_to(server: Any, start: Any) -> None:
    client = server.client()
    for choice in ("required", NAMED):
        (whole,) = client.chat.completions.create(**ASK, tool_choice=choice, seed=2, parallel_tool_calls=False).choices
        assert whole.finish_reason == "tool_calls" and whole.message.content is None
        check_calls(whole.message.tool_calls)
    with pytest.raises(openai.BadRequestError, match=r"no known format of tool calls.*'required', or a function"):
        client.chat.completions.create(**ASK)
    off = start("--tool-call-parser", "none").client()
    with pytest.raises(openai.BadRequestError, match="started with --tool-call-parser none"):
        off.chat.completions.create(**ASK, tool_choice="required")


def test_a_template_that_shows_no_tools_is_told_of_once(start: Any, tmp_path: Path) -> None:
    """By all protocols; with one that shows them there is nothing to tell."""
    silent = tmp_path / "silent.jinja"
    silent.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    args = ("--tool-call-parser", "hermes", "--trust-request-chat-template")
    server = start("--chat-template", str(silent), *args)
    ask = {**ASK, "max_tokens": 4}

    def warned() -> list[str]:
        return [line for line in list(server.lines) if "shows no tools" in line]

    for more in ({"tools": []}, {"tool_choice": "none"}, {"chat_template": TEMPLATE}):
        assert server.http.post("/v1/chat/completions", json={**ask, **more}).status_code == 200
    assert not warned()
    for _ in range(2):
        assert server.http.post("/v1/chat/completions", json=ask).status_code == 200
    tools = [{"name": "clock", "input_schema": CLOCK}]
    message = {"model": "story", "messages": MESSAGES, "max_tokens": 4, "tools": tools}
    assert server.http.post("/v1/messages", json=message).status_code == 200
    (line,) = wait_until(warned)
    assert "silent.jinja" in line and "--chat-template FILE" in line and "weather" in line
    given = {**ask, "chat_template": "{{ messages[0].content }}"}
    assert server.http.post("/v1/chat/completions", json=given).status_code == 200
    assert "chat_template of a request" in wait_until(lambda: warned()[1:])[0]
