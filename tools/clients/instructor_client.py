"""instructor: typed answers in its modes, by OpenAI's chats and responses and by Anthropic's messages; in parts."""

from __future__ import annotations

from typing import Any, Literal

import anthropic
import instructor
import openai
from ask import BRIEF, KEY, MESSAGES, MODEL, URL, end_without_schemas
from pydantic import BaseModel


class Colour(BaseModel, extra="forbid"):
    """What is asked for; a model of stories would add fields without end."""

    colour: Literal["red", "blue"]


end_without_schemas(is_all=True)
client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
ask: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "max_retries": 0, **BRIEF}
one = {"parallel_tool_calls": False}
for mode, more in (
    (instructor.Mode.TOOLS, one),
    (instructor.Mode.TOOLS_STRICT, one),
    (instructor.Mode.JSON_SCHEMA, {}),
):
    typed = instructor.from_openai(client, mode=mode)
    made, raw = typed.create_with_completion(response_model=Colour, **ask, **more)
    assert made.colour in ("red", "blue") and raw.usage.completion_tokens > 0, mode
    partial = list(typed.create_partial(response_model=Colour, **ask, **more))
    assert partial[-1].colour == made.colour, (mode, partial)
responses = instructor.from_openai(client, mode=instructor.Mode.RESPONSES_TOOLS)
by_response = {"model": MODEL, "input": MESSAGES, "max_retries": 0, "temperature": 0, "max_output_tokens": 200}
assert responses.responses.create(response_model=Colour, **by_response, **one).colour in ("red", "blue"), "responses"
messages = instructor.from_anthropic(
    anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0), mode=instructor.Mode.ANTHROPIC_TOOLS
)
by_message = {
    "model": MODEL,
    "messages": MESSAGES,
    "max_retries": 0,
    "max_tokens": 200,
    "extra_body": {"temperature": 0},
}
assert messages.create(response_model=Colour, **by_message).colour in ("red", "blue"), "messages"
