"""instructor: a typed answer by JSON schema."""

from __future__ import annotations

from typing import Literal

import instructor
import openai
from ask import BRIEF, KEY, MESSAGES, MODEL, URL, end_without_schemas
from pydantic import BaseModel


class Colour(BaseModel, extra="forbid"):
    """What is asked for; a model of stories would add fields without end."""

    colour: Literal["red", "blue"]


end_without_schemas(is_all=True)
client = instructor.from_openai(
    openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0), mode=instructor.Mode.JSON_SCHEMA
)
answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, response_model=Colour, max_retries=0, **BRIEF)
assert answer.colour in ("red", "blue")
