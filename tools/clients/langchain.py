"""langchain-openai: chat, stream, batch, completions, embeddings; structured output in its three ways; tools."""

from __future__ import annotations

from typing import Any, Literal

from ask import BRIEF, COLOURS, EMBEDDING, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, is_colour, same
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

OPTIONS: dict[str, Any] = {"base_url": f"{URL}/v1", "api_key": KEY, "model": MODEL, "temperature": 0, "max_retries": 0}

chat = ChatOpenAI(**OPTIONS, max_tokens=MAX_TOKENS)
same(chat.invoke(PROMPT).content, "invoke")
same("".join(chunk.content for chunk in chat.stream(PROMPT)), "stream")
for answer in chat.batch([PROMPT, PROMPT]):
    same(answer.content, "batch")
responses = ChatOpenAI(**OPTIONS, max_tokens=MAX_TOKENS, use_responses_api=True)
same(responses.invoke(PROMPT).content[0]["text"], "responses")
assert OpenAI(**OPTIONS, max_tokens=MAX_TOKENS).invoke(PROMPT)
# it would count tokens with another model's tokenizer first
embeddings = OpenAIEmbeddings(
    base_url=f"{URL}/v1", api_key=KEY, model=MODEL, max_retries=0, check_embedding_ctx_length=False
)
assert embeddings.embed_query(PROMPT) == EMBEDDING, "embed_query"
assert embeddings.embed_documents(["x", PROMPT])[1] == EMBEDDING, "embed_documents"
end_without_schemas()
schema = {"title": "Colour", "description": "A colour.", **COLOURS}
for way in ("json_schema", "function_calling"):
    for strict in (None, True):
        structured = ChatOpenAI(**{**OPTIONS, **BRIEF}).with_structured_output(schema, method=way, strict=strict)
        assert structured.invoke(PROMPT)["colour"] in ("red", "blue"), (way, strict)
        *_, last = structured.stream(PROMPT)
        assert last["colour"] in ("red", "blue"), (way, strict)


@tool
def paint(colour: Literal["red", "blue"]) -> str:
    """Paint the fence."""
    return f"It is {colour}."


for is_responses in (False, True):
    options = {**OPTIONS, "max_tokens": 200, "use_responses_api": is_responses, "stream_usage": True}
    asked = {"tool_choice": "paint", "strict": True, "parallel_tool_calls": False}
    bound = ChatOpenAI(**options).bind_tools([paint], **asked)
    called = bound.invoke(PROMPT)
    assert called.tool_calls, called
    (call,) = called.tool_calls
    assert call["name"] == "paint" and is_colour(call["args"]), call
    chunks = list(bound.stream(PROMPT))
    added = chunks[0]
    for chunk in chunks[1:]:
        added += chunk
    assert [each["args"] for each in added.tool_calls] == [call["args"]] and len(chunks) > 2, added
    assert added.usage_metadata["output_tokens"] == called.usage_metadata["output_tokens"], added
    told = ChatOpenAI(**{**options, "max_tokens": MAX_TOKENS}).invoke([("user", PROMPT), called, paint.invoke(call)])
    assert told.text is not None, told
