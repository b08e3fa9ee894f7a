"""huggingface_hub's InferenceClient: chat, stream."""

from __future__ import annotations

from ask import KEY, MAX_TOKENS, MESSAGES, MODEL, URL, same
from huggingface_hub import InferenceClient

client = InferenceClient(base_url=f"{URL}/v1", api_key=KEY)
ask = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": MAX_TOKENS}
same(client.chat_completion(**ask).choices[0].message.content, "chat")
chunks = client.chat_completion(**ask, stream=True)
same("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "stream")
