"""langchain-ollama, llama-index's ollama, litellm's two providers of ollama: chats, streams, embeddings, schemas."""

from __future__ import annotations

import litellm
from ask import COLOURS, EMBEDDING, KEY, MAX_TOKENS, MESSAGES, MODEL, PROMPT, URL, end_without_schemas, is_colour, same
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.ollama import OllamaEmbedding
from llama_index.llms.ollama import Ollama

HEADERS = {"authorization": f"Bearer {KEY}"}
OPTIONS = {
    "base_url": URL,
    "model": MODEL,
    "temperature": 0,
    "num_predict": MAX_TOKENS,
    "client_kwargs": {"headers": HEADERS},
}

chat = ChatOllama(**OPTIONS, validate_model_on_init=True)
same(chat.invoke(PROMPT).content, "langchain")
same("".join(chunk.content for chunk in chat.stream(PROMPT)), "langchain, streamed")
assert chat.invoke(PROMPT).usage_metadata["output_tokens"] == MAX_TOKENS, "langchain's counts"
same(OllamaLLM(**OPTIONS).invoke(PROMPT), "langchain, generate")
embeddings = OllamaEmbeddings(base_url=URL, model=MODEL, client_kwargs={"headers": HEADERS})
assert embeddings.embed_query(PROMPT) == EMBEDDING, "langchain's embedding"

index = Ollama(
    MODEL,
    base_url=URL,
    temperature=0,
    keep_alive="5m",
    headers=HEADERS,
    additional_kwargs={"num_predict": MAX_TOKENS},
)
same(index.chat([ChatMessage(role="user", content=PROMPT)]).message.content, "llama-index")
same(index.complete(PROMPT).text, "llama-index, generate")
*_, last = index.stream_chat([ChatMessage(role="user", content=PROMPT)])
same(last.message.content, "llama-index, streamed")
embedded = OllamaEmbedding(MODEL, base_url=URL, client_kwargs={"headers": HEADERS}).get_query_embedding(PROMPT)
assert embedded == EMBEDDING, "llama-index's embedding"

litellm.telemetry = False
litellm.suppress_debug_info = True
ASK = {"messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS, "api_base": URL, "api_key": KEY}
for provider in ("ollama_chat", "ollama"):
    ask = {**ASK, "model": f"{provider}/{MODEL}"}
    chunks = litellm.completion(**ask, stream=True)
    said = litellm.completion(**ask).choices[0].message.content
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    if provider == "ollama_chat":
        same(said, "litellm")
    assert said == streamed, (provider, said, streamed)  # "ollama" writes a prompt of its own
vectors = litellm.embedding(model=f"ollama/{MODEL}", input=["x", PROMPT], api_base=URL, api_key=KEY)
assert vectors.data[1]["embedding"] == EMBEDDING, "litellm's embedding"
end_without_schemas()
schema = {"title": "Colour", "description": "A colour.", **COLOURS}
long = ChatOllama(**{**OPTIONS, "num_predict": 200})
assert is_colour(long.with_structured_output(schema, method="json_schema").invoke(PROMPT)), "langchain's schema"
form = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOURS}}
formed = litellm.completion(**{**ASK, "max_tokens": 200}, model=f"ollama_chat/{MODEL}", response_format=form)
assert is_colour(litellm.json.loads(formed.choices[0].message.content)), formed
