"""outlines against a server of vLLM's: text, a choice, a regular expression, JSON, a grammar; streams, async."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Literal

import openai
import outlines
from ask import BRIEF, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, is_colour, same
from outlines.types import CFG, Regex
from pydantic import BaseModel


class Colour(BaseModel, extra="forbid"):
    """What is asked for."""

    colour: Literal["red", "blue"]


OPTIONS = {"base_url": f"{URL}/v1", "api_key": KEY, "max_retries": 0}
SHORT = {"max_tokens": MAX_TOKENS, "temperature": 0}
model = outlines.from_vllm(openai.OpenAI(**OPTIONS), MODEL)
same(model(PROMPT, **SHORT), "text")
same("".join(model.stream(PROMPT, **SHORT)), "stream")
end_without_schemas()

assert model(PROMPT, Literal["red", "blue"], **BRIEF) in ("red", "blue"), "choice"
assert re.fullmatch("[a-c]{3}", model(PROMPT, Regex("[a-c]{3}"), **BRIEF)), "regex"
assert is_colour(json.loads(model(PROMPT, Colour, **BRIEF))), "JSON"
assert is_colour(json.loads("".join(model.stream(PROMPT, Colour, **BRIEF)))), "streamed JSON"
assert isinstance(int(model(PROMPT, int, max_tokens=30, temperature=0)), int)
assert model(PROMPT, CFG('start: "red" | "blue"'), **BRIEF) in ("red", "blue"), "grammar"
many = model(PROMPT, Literal["red", "blue"], n=2, max_tokens=20)
assert len(many) == 2 and set(many) <= {"red", "blue"}, many


async def asynchronous() -> None:
    """The same, with the async client."""
    later = outlines.from_vllm(openai.AsyncOpenAI(**OPTIONS), MODEL)
    same(await later(PROMPT, **SHORT), "async text")
    assert is_colour(json.loads(await later(PROMPT, Colour, **BRIEF))), "async JSON"


asyncio.run(asynchronous())
# OpenAI's own protocol, which has schemas and nothing else
plain = outlines.from_openai(openai.OpenAI(**OPTIONS), MODEL)
assert is_colour(json.loads(plain(PROMPT, Colour, **BRIEF))), "by response_format"
