"""llama-index's OpenAILike: chat, stream, completion."""

from __future__ import annotations

from ask import KEY, MAX_TOKENS, MODEL, PROMPT, URL, same
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

OPTIONS = {"model": MODEL, "api_base": f"{URL}/v1", "api_key": KEY, "temperature": 0, "max_tokens": MAX_TOKENS}

chat = OpenAILike(**OPTIONS, is_chat_model=True, context_window=512, max_retries=0)
messages = [ChatMessage(role="user", content=PROMPT)]
same(chat.chat(messages).message.content, "chat")
same("".join(chunk.delta or "" for chunk in chat.stream_chat(messages)), "stream")
same(str(chat.complete(PROMPT)), "complete, by chat")
plain = OpenAILike(**OPTIONS, is_chat_model=False, context_window=512, max_retries=0)
assert str(plain.complete(PROMPT))
