"""pydantic-ai: chats, responses and Anthropic's messages: runs, streams, typed answers by call and by schema."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from ask import KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, same
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.profiles import ModelProfile
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Colour(BaseModel, extra="forbid"):
    """What is asked for."""

    colour: Literal["red", "blue"]


async def words(model: Any) -> None:
    """An answer in words, whole and streamed, and a conversation that goes on."""
    settings: Any = {"temperature": 0, "max_tokens": MAX_TOKENS}
    agent = Agent(model, model_settings=settings)
    ran = await agent.run(PROMPT)
    same(ran.output, f"run {model}")
    assert ran.usage.output_tokens == MAX_TOKENS, ran.usage
    async with agent.run_stream(PROMPT) as stream:
        parts = [part async for part in stream.stream_text(delta=True, debounce_by=None)]
    same("".join(parts), f"stream {model}")
    assert (await agent.run(PROMPT, message_history=ran.all_messages())).output


async def forms(model: Any) -> None:
    """A typed answer, by a call that is forced and by a schema, whole and streamed."""
    settings: Any = {"temperature": 0, "max_tokens": 200, "parallel_tool_calls": False}
    for form in (ToolOutput(Colour), NativeOutput(Colour)):
        typed = Agent(model, output_type=form, retries=0, model_settings=settings)
        assert (await typed.run(PROMPT)).output.colour in ("red", "blue"), (model, form)
        async with typed.run_stream(PROMPT) as stream:
            assert (await stream.get_output()).colour in ("red", "blue"), (model, form)


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    takes_schemas = ModelProfile(supports_json_schema_output=True)  # it knows of Anthropic's own models
    models = [
        OpenAIChatModel(MODEL, provider=provider),
        OpenAIResponsesModel(MODEL, provider=provider),
        AnthropicModel(MODEL, provider=AnthropicProvider(base_url=URL, api_key=KEY), profile=takes_schemas),
    ]
    for model in models:
        await words(model)
    end_without_schemas()
    for model in models:
        await forms(model)


asyncio.run(main())
