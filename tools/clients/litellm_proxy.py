"""litellm as a proxy in front of the server: chats, responses, Anthropic's messages, embeddings, calls, a schema."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import yaml
from ask import (
    BRIEF,
    COLOURS,
    EMBEDDING,
    KEY,
    MAX_TOKENS,
    MESSAGES,
    MODEL,
    PROMPT,
    TEXT,
    TOOL,
    TOOL_SAYS,
    URL,
    end_without_schemas,
    is_colour,
    raises,
    same,
)

#: As the proxy calls the same model: by the protocol that it speaks to the server.
CHATS, VLLM, MESSAGING = "chats", "vllm", "messaging"
BACKENDS = {
    CHATS: {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1"},
    VLLM: {"model": f"hosted_vllm/{MODEL}", "api_base": f"{URL}/v1"},
    MESSAGING: {"model": f"anthropic/{MODEL}", "api_base": URL},
}
START_S = 90.0
#: Tokens: of responses, which it makes of messages, too, it asks for so many whatever it is told.
AT_LEAST = 16
#: What the proxy asks of its callers: another one than the server's.
PROXY_KEY = f"sk-{KEY}-of-the-proxy"


@contextmanager
def proxy() -> Iterator[str]:
    """Its address, while it runs."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        models = [
            {"model_name": name, "litellm_params": {**options, "api_key": KEY}} for name, options in BACKENDS.items()
        ]
        settings = {"num_retries": 0, "drop_params": True, "telemetry": False}
        config = Path(folder, "config.yaml")
        own = {"master_key": PROXY_KEY}
        config.write_text(yaml.safe_dump({"model_list": models, "litellm_settings": settings, "general_settings": own}))
        command = [
            Path(sys.executable).parent / "litellm",
            "--config",
            config,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        log = Path(folder, "log")
        with log.open("w") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "NO_PROXY": "*"})
        try:
            url, end = f"http://127.0.0.1:{port}", time.monotonic() + START_S
            while not is_up(url):
                assert process.poll() is None and time.monotonic() < end, log.read_text()[-2000:]
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def is_up(url: str) -> bool:
    """Whether the proxy answers."""
    try:
        return httpx.get(f"{url}/health/liveliness", timeout=2).is_success
    except httpx.HTTPError:
        return False


def by_chats(client: openai.OpenAI, name: str) -> None:
    """Words, whole and streamed."""
    ask: dict[str, Any] = {"model": name, "messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS}
    same(client.chat.completions.create(**ask).choices[0].message.content, name)
    chunks = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    same("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), f"{name}, streamed")
    assert chunks[-1].usage.completion_tokens == MAX_TOKENS, chunks[-1]


def by_responses(client: openai.OpenAI, name: str) -> None:
    """Words, whole and streamed."""
    ask: dict[str, Any] = {"model": name, "input": PROMPT, "temperature": 0, "max_output_tokens": AT_LEAST}
    text = client.responses.create(**ask).output_text
    assert text.startswith(TEXT), (name, text)
    deltas = [event.delta for event in client.responses.create(**ask, stream=True) if "text.delta" in event.type]
    assert "".join(deltas) == text, (name, deltas)


def by_messages(client: anthropic.Anthropic, name: str) -> None:
    """Words, whole and streamed."""
    ask: dict[str, Any] = {
        "model": name,
        "messages": MESSAGES,
        "max_tokens": AT_LEAST,
        "extra_body": {"temperature": 0},
    }
    text = client.messages.create(**ask).content[0].text
    assert text.startswith(TEXT), (name, text)
    with client.messages.stream(**ask) as stream:
        assert "".join(stream.text_stream) == text, name
        assert stream.get_final_message().stop_reason == "max_tokens", name


def calls(client: openai.OpenAI, messages: anthropic.Anthropic, name: str) -> None:
    """A call that is asked for, by either protocol, whole and streamed."""
    tools: Any = [{"type": "function", "function": {"name": TOOL, "description": TOOL_SAYS, "parameters": COLOURS}}]
    ask: Any = {"model": name, "messages": MESSAGES, "max_tokens": 200, "temperature": 0, "tools": tools}
    ask |= {"tool_choice": {"type": "function", "function": {"name": TOOL}}, "parallel_tool_calls": False}
    (call,) = client.chat.completions.create(**ask).choices[0].message.tool_calls
    assert is_colour(json.loads(call.function.arguments)), (name, call)
    with client.chat.completions.stream(**ask) as stream:
        (again,) = stream.get_final_completion().choices[0].message.tool_calls
    assert json.loads(again.function.arguments) == json.loads(call.function.arguments), (name, again)
    tool: Any = {"name": TOOL, "description": TOOL_SAYS, "input_schema": COLOURS}
    asked: Any = {"model": name, "messages": MESSAGES, "max_tokens": 200, "tools": [tool]}
    asked |= {"tool_choice": {"type": "tool", "name": TOOL}, "extra_body": {"temperature": 0}}
    blocks = messages.messages.create(**asked).content
    assert [block.input for block in blocks if block.type == "tool_use"] == [json.loads(call.function.arguments)], (
        blocks
    )
    with messages.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use" and is_colour(final.content[-1].input), final


def main() -> None:
    with proxy() as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY, max_retries=0)
        messages = anthropic.Anthropic(base_url=url, api_key=PROXY_KEY, max_retries=0)
        assert {model.id for model in client.models.list()} == set(BACKENDS)
        for name in BACKENDS:
            by_chats(client, name)
            by_responses(client, name)
            by_messages(messages, name)
        for name in (CHATS, VLLM):
            embedded = client.embeddings.create(model=name, input=["x", PROMPT]).data[1].embedding
            assert max(abs(one - other) for one, other in zip(embedded, EMBEDDING, strict=True)) < 1e-6, name
        wrong = {"model": CHATS, "messages": MESSAGES, "top_p": 2}
        raises(openai.BadRequestError, lambda: client.chat.completions.create(**wrong), "top_p")
        end_without_schemas()
        for name in (CHATS, MESSAGING):  # of the tools of vLLM it takes away that they take nothing else
            calls(client, messages, name)
        form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS}}
        for name in (CHATS, VLLM):
            formed = client.chat.completions.create(model=name, messages=MESSAGES, response_format=form, **BRIEF)
            assert is_colour(json.loads(formed.choices[0].message.content)), (name, formed)


main()
