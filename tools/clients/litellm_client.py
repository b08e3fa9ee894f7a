"""litellm: chat, stream, completion, responses, embeddings, rerank, Anthropic's protocol; calls of tools, schemas."""

from __future__ import annotations

import json

import litellm
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

litellm.telemetry = False
litellm.suppress_debug_info = True
ASK = {"messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS, "api_key": KEY, "num_retries": 0}
OPENAI = {**ASK, "model": f"openai/{MODEL}", "api_base": f"{URL}/v1"}

same(litellm.completion(**OPENAI).choices[0].message.content, "chat")
chunks = litellm.completion(**OPENAI, stream=True)
same("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "stream")
same(litellm.completion(**{**OPENAI, "model": f"hosted_vllm/{MODEL}"}).choices[0].message.content, "as vLLM")
anthropic = {**ASK, "model": f"anthropic/{MODEL}", "api_base": URL}
same(litellm.completion(**anthropic).choices[0].message.content, "Anthropic's protocol")
text = litellm.text_completion(
    model=f"text-completion-openai/{MODEL}", prompt=PROMPT, api_base=f"{URL}/v1", api_key=KEY, max_tokens=4
)
assert text.choices[0].finish_reason == "length"
embedded = litellm.embedding(model=f"openai/{MODEL}", input=["x", PROMPT], api_base=f"{URL}/v1", api_key=KEY)
assert embedded.data[1]["embedding"] == EMBEDDING, "embedding"
documents = ["x", PROMPT]
ranked = litellm.rerank(
    model=f"hosted_vllm/{MODEL}", query=PROMPT, documents=documents, top_n=1, api_base=URL, api_key=KEY
)
assert [each["index"] for each in ranked.results] == [1], "rerank"
raises(litellm.NotFoundError, lambda: litellm.completion(**{**OPENAI, "model": "openai/other"}), "model")
responded = litellm.responses(
    model=f"openai/{MODEL}",
    input=PROMPT,
    temperature=0,
    max_output_tokens=MAX_TOKENS,
    api_base=f"{URL}/v1",
    api_key=KEY,
)
assert responded.output[0].content[0].text.startswith(TEXT), responded  # it asks for 16 tokens at least
end_without_schemas()
tools = [{"type": "function", "function": {"name": TOOL, "description": TOOL_SAYS, "parameters": COLOURS}}]
for each in (OPENAI, anthropic):  # of the tools of vLLM it takes away that they take nothing else
    forced = {"type": "function", "function": {"name": TOOL}}
    asked = {**each, "max_tokens": 200, "tools": tools, "tool_choice": forced, "parallel_tool_calls": False}
    answer = litellm.completion(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == TOOL and is_colour(json.loads(call.function.arguments)), (each["model"], call)
    built = litellm.stream_chunk_builder(list(litellm.completion(**asked, stream=True)))
    (again,) = built.choices[0].message.tool_calls
    assert json.loads(again.function.arguments) == json.loads(call.function.arguments), (each["model"], again)
    messages = [*MESSAGES, answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "Done."}]
    more = litellm.completion(**{**each, "messages": messages, "tools": tools})
    assert more.choices[0].finish_reason in ("length", "stop"), (each["model"], more)
form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS, "strict": True}}
for each in (OPENAI, {**OPENAI, "model": f"hosted_vllm/{MODEL}"}):
    formed = litellm.completion(**{**each, **BRIEF}, response_format=form)
    assert is_colour(json.loads(formed.choices[0].message.content)), (each["model"], formed)
