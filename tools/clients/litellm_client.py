"""litellm: chat, stream, text completion, embeddings, rerank, Anthropic's protocol."""

from __future__ import annotations

import litellm
from ask import EMBEDDING, KEY, MAX_TOKENS, MESSAGES, MODEL, PROMPT, URL, raises, same

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
