"""ollama: chat, generate, embed, streams, tools, schemas, logprobs, errors, models; plain and asynchronous."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import ollama
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

client = ollama.Client(URL, headers={"authorization": f"Bearer {KEY}"})
SHORT = {"temperature": 0, "num_predict": MAX_TOKENS}
OPTIONS = ollama.Options(**SHORT, num_ctx=256, repeat_penalty=1.0, top_k=40, mirostat=0)

answer = client.chat(MODEL, MESSAGES, options=SHORT)
same(answer.message.content, "chat")
assert (answer.done_reason, answer.eval_count, answer.prompt_eval_count > 0) == ("length", MAX_TOKENS, True), answer
assert answer.total_duration >= answer.eval_duration > 0, answer
for each in (OPTIONS, SHORT):
    parts = list(client.chat(MODEL, MESSAGES, options=each, stream=True, keep_alive="5m"))
    same("".join(part.message.content for part in parts), "chat, streamed")
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True] and parts[-1].eval_count == MAX_TOKENS
generated = client.generate(MODEL, PROMPT, options=SHORT)
same(generated.response, "generate")
same(
    "".join(each.response for each in client.generate(f"{MODEL}:latest", PROMPT, options=SHORT, stream=True)), "stream"
)
went_on = client.generate(MODEL, "And then", context=generated.context, options=SHORT)
assert went_on.prompt_eval_count > generated.prompt_eval_count + MAX_TOKENS, went_on
assert client.generate(MODEL, PROMPT, raw=True, options=SHORT).response == TEXT, "raw"
told = client.chat(MODEL, MESSAGES, options=SHORT, logprobs=True, top_logprobs=2)
assert "".join(each.token for each in told.logprobs) == TEXT and len(told.logprobs[0].top_logprobs) == 2, told.logprobs
assert client.generate(MODEL, keep_alive=-1).done_reason == "load", "load"
assert client.embed(MODEL, ["x", PROMPT]).embeddings[1] == EMBEDDING, "embed"
assert client.embed(MODEL, PROMPT, truncate=True, options={"num_ctx": 64}).embeddings == [EMBEDDING], "embed"
assert len(client.embeddings(MODEL, PROMPT).embedding) == len(EMBEDDING), "embeddings"
assert [each.model for each in client.list().models] == [f"{MODEL}:latest"], "list"
assert [each.model for each in client.ps().models] == [f"{MODEL}:latest"], "ps"
shown = client.show(MODEL)
assert "completion" in shown.capabilities and shown.modelinfo["general.architecture"] == "llama", shown
assert client.pull(MODEL).status == "success", "pull of what is here"
wrong: list[tuple[Any, int]] = [
    (lambda: client.chat("other", MESSAGES), 404),
    (lambda: client.pull("other"), 400),
    (lambda: client.delete(MODEL), 400),
    (lambda: client.copy(MODEL, "other"), 400),
    (lambda: client.create("other", from_=MODEL), 400),
    (lambda: client.chat(MODEL, MESSAGES, options={"mirostat": 2}), 400),
    (lambda: client.generate(MODEL, PROMPT, template="{{ .Prompt }}"), 400),
    (lambda: list(client.chat(MODEL, MESSAGES, think=True, stream=True)), 400),
    (lambda: client.generate(MODEL, PROMPT, images=[base64.b64encode(b"x").decode()]), 400),
]
for call, status in wrong:
    error = raises(ollama.ResponseError, call, str(status))
    assert isinstance(error, ollama.ResponseError) and error.status_code == status and error.error, error


async def asynchronous() -> None:
    """The same client, with await."""
    other = ollama.AsyncClient(URL, headers={"authorization": f"Bearer {KEY}"})
    same((await other.chat(MODEL, MESSAGES, options=SHORT)).message.content, "async")
    chunks = [chunk.response async for chunk in await other.generate(MODEL, PROMPT, options=SHORT, stream=True)]
    same("".join(chunks), "async, streamed")


asyncio.run(asynchronous())
end_without_schemas()
long = {"temperature": 0, "num_predict": 200, "frequency_penalty": BRIEF["frequency_penalty"]}
for stream in (False, True):
    got = client.chat(MODEL, MESSAGES, format=COLOURS, options=long, stream=stream)
    text = "".join(part.message.content for part in got) if stream else got.message.content
    assert is_colour(json.loads(text)), text
    got = client.generate(MODEL, PROMPT, format=COLOURS, options=long)
    assert is_colour(json.loads(got.response)), got
# nobody can have a model of stories make a call here, where there is no tool_choice; one that was made goes back
tool = {"type": "function", "function": {"name": TOOL, "description": TOOL_SAYS, "parameters": COLOURS}}
called = {"role": "assistant", "tool_calls": [{"function": {"name": TOOL, "arguments": {"colour": "red"}}}]}
turns = [*MESSAGES, called, {"role": "tool", "tool_name": TOOL, "content": "It is red."}]
assert client.chat(MODEL, turns, tools=[tool], options=SHORT).message.content, "tools"
