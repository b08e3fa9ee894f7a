"""haystack: its chat and response generators, whole, streamed, with a tool and a schema; embeddings; an agent."""

from __future__ import annotations

import json
from typing import Any

from ask import (
    BRIEF,
    COLOURS,
    EMBEDDING,
    KEY,
    MAX_TOKENS,
    MODEL,
    PROMPT,
    TOOL,
    TOOL_SAYS,
    URL,
    end_without_schemas,
    is_colour,
    same,
)
from haystack import Document
from haystack.components.agents import Agent
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret

OPTIONS: dict[str, Any] = {"api_key": Secret.from_token(KEY), "model": MODEL, "api_base_url": f"{URL}/v1"}
MESSAGES = [ChatMessage.from_user(PROMPT)]
KINDS = ((OpenAIChatGenerator, "max_completion_tokens"), (OpenAIResponsesChatGenerator, "max_output_tokens"))
tool = Tool(TOOL, TOOL_SAYS, COLOURS, lambda colour: f"It is {colour}.")

for kind, limit in KINDS:
    short = {"temperature": 0, limit: MAX_TOKENS}
    what = kind.__name__
    same(kind(**OPTIONS, generation_kwargs=short).run(MESSAGES)["replies"][0].text, what)
    parts: list[Any] = []
    streaming = kind(**OPTIONS, generation_kwargs=short, streaming_callback=parts.append)
    same(streaming.run(MESSAGES)["replies"][0].text, f"{what}, streamed")
    same("".join(part.content for part in parts), f"{what}, its chunks")
embedded = OpenAITextEmbedder(**OPTIONS).run(PROMPT)["embedding"]
assert embedded == EMBEDDING, "embedding"
documents = OpenAIDocumentEmbedder(**OPTIONS, progress_bar=False).run([Document(content=PROMPT)])["documents"]
assert documents[0].embedding == EMBEDDING, "embedding of a document"
end_without_schemas()
for kind, limit in KINDS:
    asked = {"temperature": 0, limit: 200, "tool_choice": "required", "parallel_tool_calls": False}
    for callback in (None, lambda chunk: None):
        generator = kind(**OPTIONS, generation_kwargs=asked, tools=[tool], streaming_callback=callback)
        (call,) = generator.run(MESSAGES)["replies"][0].tool_calls
        assert call.tool_name == TOOL and is_colour(call.arguments), (kind, call)
    # the call and its result go back
    agent = Agent(chat_generator=kind(**OPTIONS, generation_kwargs=asked), tools=[tool], exit_conditions=[TOOL])
    ran = agent.run(MESSAGES)["messages"]
    assert ran[-1].tool_call_result.result in ("It is red.", "It is blue."), ran
    more = kind(**OPTIONS, generation_kwargs={"temperature": 0, limit: MAX_TOKENS}).run(ran)["replies"]
    assert more[0].text is not None, more
form = {"type": "json_schema", "json_schema": {"name": "colour", "strict": True, "schema": COLOURS}}
typed = OpenAIChatGenerator(**OPTIONS, generation_kwargs={**BRIEF, "response_format": form})
assert is_colour(json.loads(typed.run(MESSAGES)["replies"][0].text)), "schema"
