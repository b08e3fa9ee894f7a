"""openai for Python, 2.x and 3.x: sync, async, streams, responses, embeddings, batches, typed exceptions, parse."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Literal

import openai
from ask import (
    BRIEF,
    COLOURS,
    EMBEDDING,
    KEY,
    MAX_TOKENS,
    MESSAGES,
    MODEL,
    PROMPT,
    TOOL,
    TOOL_SAYS,
    URL,
    end_without_schemas,
    is_colour,
    raises,
    same,
)
from pydantic import BaseModel


class Colour(BaseModel):
    """What parse is asked for."""

    colour: Literal["red", "blue"]


ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS}
RESPONSE: dict[str, Any] = {"model": MODEL, "input": PROMPT, "temperature": 0, "max_output_tokens": MAX_TOKENS}


async def asynchronous() -> None:
    """All over again, with the async client."""
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
        same((await client.chat.completions.create(**ASK)).choices[0].message.content, "async chat")
        text = ""
        async for chunk in await client.chat.completions.create(**ASK, stream=True):
            text += chunk.choices[0].delta.content or ""
        same(text, "async stream")
        same((await client.responses.create(**RESPONSE)).output_text, "async response")
        embedded = await client.embeddings.create(model=MODEL, input=[PROMPT, "x"])
        assert embedded.data[0].embedding == EMBEDDING, "async embedding"


def tools(client: openai.OpenAI) -> None:
    """A response that calls, whole and streamed, and the result of the call."""
    tool: Any = {"type": "function", "name": TOOL, "description": TOOL_SAYS, "parameters": COLOURS, "strict": True}
    ask = {**RESPONSE, "max_output_tokens": 200, "tools": [tool], "tool_choice": "required"}
    ask["parallel_tool_calls"] = False
    made = client.responses.create(**ask)
    (call,) = made.output
    assert call.type == "function_call" and call.name == TOOL and is_colour(json.loads(call.arguments)), made
    with client.responses.stream(**ask) as stream:
        parts = [event.delta for event in stream if event.type == "response.function_call_arguments.delta"]
        (final,) = stream.get_final_response().output
    assert "".join(parts) == final.arguments == call.arguments, final
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "Done."}
    more = client.responses.create(**{**RESPONSE, "input": [result]}, previous_response_id=made.id)
    assert more.output_text, more


def batches(client: openai.OpenAI) -> None:
    """A file of requests, run, read and deleted."""
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": ASK}
    asks = client.files.create(file=("asks.jsonl", json.dumps(line).encode()), purpose="batch")
    batch = client.batches.create(input_file_id=asks.id, endpoint="/v1/chat/completions", completion_window="24h")
    end = time.monotonic() + 60
    while batch.status != "completed" and time.monotonic() < end:
        time.sleep(0.05)
        batch = client.batches.retrieve(batch.id)
    assert batch.output_file_id is not None, batch
    (answer,) = map(json.loads, client.files.content(batch.output_file_id).text.splitlines())
    same(answer["response"]["body"]["choices"][0]["message"]["content"], "batch")
    assert {asks.id, batch.output_file_id} <= {each.id for each in client.files.list(limit=1)}
    assert client.files.delete(asks.id).deleted


def main() -> None:
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
    assert [model.id for model in client.models.list()] == [MODEL]
    same(client.chat.completions.create(**ASK).choices[0].message.content, "chat")
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    same("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), "stream")
    assert chunks[-1].usage.completion_tokens == MAX_TOKENS
    with client.chat.completions.stream(**ASK) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    same("".join(deltas), "stream helper")
    completion = client.completions.create(model=MODEL, prompt=PROMPT, temperature=0, max_tokens=MAX_TOKENS)
    assert completion.choices[0].finish_reason == "length"
    made = client.responses.create(**RESPONSE)
    same(made.output_text, "response")
    same(client.responses.retrieve(made.id).output_text, "stored response")
    text = "".join(e.delta for e in client.responses.create(**RESPONSE, stream=True) if "text.delta" in e.type)
    same(text, "response stream")
    for encoding in ({}, {"encoding_format": "float"}):
        embedded = client.embeddings.create(model=MODEL, input=["x", PROMPT], **encoding)
        assert embedded.data[1].embedding == EMBEDDING, f"embedding {encoding}"
    asyncio.run(asynchronous())
    raises(openai.NotFoundError, lambda: client.chat.completions.create(**{**ASK, "model": "other"}), "model")
    error = raises(openai.BadRequestError, lambda: client.chat.completions.create(**{**ASK, "top_p": 2}), "top_p")
    assert isinstance(error, openai.BadRequestError) and error.param == "top_p"
    wrong = client.with_options(api_key="wrong")
    raises(openai.AuthenticationError, lambda: wrong.chat.completions.create(**ASK), "key")
    batches(client)
    end_without_schemas()
    tools(client)
    parse = {**ASK, **BRIEF, "response_format": Colour}
    parsed = client.chat.completions.parse(**parse).choices[0].message.parsed
    assert parsed is not None and parsed.colour in ("red", "blue")


main()
