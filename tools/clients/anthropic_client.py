"""anthropic: sync, async, streams, tools, counting tokens, typed exceptions."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
from ask import (
    COLOURS,
    KEY,
    MAX_TOKENS,
    MESSAGES,
    MODEL,
    TOOL,
    TOOL_SAYS,
    URL,
    end_without_schemas,
    is_colour,
    raises,
    same,
)

ASK: dict[str, Any] = {
    "model": MODEL,
    "messages": MESSAGES,
    "max_tokens": MAX_TOKENS,
    "extra_body": {"temperature": 0},
}


async def asynchronous() -> None:
    """All over again, with the async client."""
    async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as client:
        same((await client.messages.create(**ASK)).content[0].text, "async")
        async with client.messages.stream(**ASK) as stream:
            same("".join([text async for text in stream.text_stream]), "async stream")


def tools(client: anthropic.Anthropic) -> None:
    """A call that is asked for, whole and streamed, and its result."""
    tool: Any = {"name": TOOL, "description": TOOL_SAYS, "input_schema": COLOURS}
    ask = {**ASK, "max_tokens": 200, "tools": [tool], "tool_choice": {"type": "tool", "name": TOOL}}
    answer = client.messages.create(**ask)
    (call,) = answer.content
    assert answer.stop_reason == "tool_use" and call.type == "tool_use" and call.name == TOOL, answer
    assert is_colour(call.input), call
    with client.messages.stream(**ask) as stream:
        parts = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert final.content[0].input == call.input and len(parts) > 1, final
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Done."}]}
    messages = [*MESSAGES, {"role": "assistant", "content": answer.content}, result]
    more = client.messages.create(**{**ASK, "messages": messages, "tools": [tool]})
    assert more.content[0].type == "text", more


def main() -> None:
    client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
    answer = client.messages.create(**ASK)
    same(answer.content[0].text, "message")
    assert answer.stop_reason == "max_tokens" and answer.usage.output_tokens == MAX_TOKENS
    with client.messages.stream(**ASK) as stream:
        same("".join(stream.text_stream), "stream")
        final = stream.get_final_message()
    assert final.stop_reason == "max_tokens" and final.usage == answer.usage
    events = [event.type for event in client.messages.create(**ASK, stream=True)]
    assert (events[0], events[-1]) == ("message_start", "message_stop")
    count = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert count.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    stopped = client.messages.create(**{**ASK, "system": "A story.", "stop_sequences": [" "]})
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == " "
    raises(anthropic.NotFoundError, lambda: client.messages.create(**{**ASK, "model": "other"}), "model")
    raises(anthropic.BadRequestError, lambda: client.messages.create(**{**ASK, "max_tokens": 0}), "max_tokens")
    wrong = client.with_options(api_key="wrong")
    raises(anthropic.AuthenticationError, lambda: wrong.messages.create(**ASK), "key")
    asyncio.run(asynchronous())
    end_without_schemas()
    tools(client)


main()
