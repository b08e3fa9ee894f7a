"""langchain-openai: chat, stream, batch, completions, embeddings, structured output."""

from __future__ import annotations

from typing import Any

from ask import BRIEF, COLOURS, EMBEDDING, KEY, MAX_TOKENS, MODEL, PROMPT, URL, end_without_schemas, same
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
structured = ChatOpenAI(**{**OPTIONS, **BRIEF}).with_structured_output(schema, method="json_schema")
assert structured.invoke(PROMPT)["colour"] in ("red", "blue")
