"""llama-index's OpenAILike: chat, stream, completion, async; calls of tools, typed answers; its model of responses."""

from __future__ import annotations

import asyncio
from typing import Literal

from ask import BRIEF, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, is_colour, same
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike, OpenAILikeResponses
from pydantic import BaseModel


class Colour(BaseModel, extra="forbid"):
    """What is asked for."""

    colour: Literal["red", "blue"]


def paint(colour: str) -> str:
    """Paint the fence."""
    return f"It is {colour}."


SERVER = {"model": MODEL, "api_base": f"{URL}/v1", "api_key": KEY, "temperature": 0, "max_retries": 0}
OPTIONS = {**SERVER, "max_tokens": MAX_TOKENS, "context_window": 512}

chat = OpenAILike(**OPTIONS, is_chat_model=True)
messages = [ChatMessage(role="user", content=PROMPT)]
same(chat.chat(messages).message.content, "chat")
same("".join(chunk.delta or "" for chunk in chat.stream_chat(messages)), "stream")
same(str(chat.complete(PROMPT)), "complete, by chat")
same(asyncio.run(chat.achat(messages)).message.content, "async chat")
plain = OpenAILike(**OPTIONS, is_chat_model=False)
assert str(plain.complete(PROMPT))
assert str(plain.complete(PROMPT)) == "".join(chunk.delta or "" for chunk in plain.stream_complete(PROMPT))
responses = OpenAILikeResponses(**SERVER, max_output_tokens=MAX_TOKENS, context_window=512)
same(responses.chat(messages).message.content, "responses")
same("".join(chunk.delta or "" for chunk in responses.stream_chat(messages)), "responses, streamed")
end_without_schemas()
brief = {**OPTIONS, "max_tokens": 200, "additional_kwargs": {"frequency_penalty": BRIEF["frequency_penalty"]}}
caller = OpenAILike(**brief, is_chat_model=True, is_function_calling_model=True)
tool = FunctionTool.from_defaults(paint, fn_schema=Colour)
called = caller.chat_with_tools([tool], user_msg=PROMPT, tool_required=True, strict=True)
(call,) = caller.get_tool_calls_from_response(called)
assert call.tool_name == "paint" and is_colour(call.tool_kwargs), call
*_, last = caller.stream_chat_with_tools([tool], user_msg=PROMPT, tool_required=True, strict=True)
assert caller.get_tool_calls_from_response(last)[0].tool_kwargs == call.tool_kwargs, last
told = ChatMessage(role="tool", content=paint(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id})
assert chat.chat([*messages, called.message, told]).message.content is not None
typed = OpenAILike(**brief, is_chat_model=True, should_use_structured_outputs=True)
for model in (typed, caller):
    assert model.as_structured_llm(Colour).complete(PROMPT).raw.colour in ("red", "blue"), model
