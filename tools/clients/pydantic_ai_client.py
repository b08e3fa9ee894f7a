"""pydantic-ai: run, stream, responses, and a typed answer by JSON schema."""

from __future__ import annotations

import asyncio
from typing import Literal

from ask import BRIEF, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, same
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class Colour(BaseModel):
    """What is asked for."""

    colour: Literal["red", "blue"]


async def main() -> None:
    provider = OpenAIProvider(base_url=f"{URL}/v1", api_key=KEY)
    settings = {"temperature": 0, "max_tokens": MAX_TOKENS}
    agent = Agent(OpenAIChatModel(MODEL, provider=provider))
    same((await agent.run(PROMPT, model_settings=settings)).output, "run")
    async with agent.run_stream(PROMPT, model_settings=settings) as stream:
        same(await stream.get_output(), "stream")
    responses = Agent(OpenAIResponsesModel(MODEL, provider=provider))
    same((await responses.run(PROMPT, model_settings=settings)).output, "responses")
    end_without_schemas()
    typed = Agent(OpenAIChatModel(MODEL, provider=provider), output_type=NativeOutput(Colour), retries=0)
    answer = await typed.run(PROMPT, model_settings=BRIEF)
    assert answer.output.colour in ("red", "blue")


asyncio.run(main())
