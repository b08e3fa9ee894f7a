"""A request of Anthropic's messages -> a request of a chat.

Used by endpoints/messages.py. Does not know the engine.
"""

from __future__ import annotations

from typing import Any

from albireo.server.dialects.texts import merged
from albireo.server.errors import HttpError, unsupported
from albireo.server.protocol.anthropic import COUNT_NEUTRAL, MESSAGES_NEUTRAL, CountTokensRequest, MessagesRequest
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.fields import unneutral


def as_chat(request: MessagesRequest) -> ChatRequest:
    """What is asked, as a chat. Raises: HttpError 400 that names a field."""
    asked = unneutral(request, MESSAGES_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    messages = _messages(request)
    return ChatRequest(
        model=request.model,
        messages=messages,
        max_tokens=request.max_tokens,
        stop=list(request.stop_sequences or ()) or None,
        stream=request.stream,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        continue_final_message=_is_open(messages),
    )


def conversation(request: CountTokensRequest) -> tuple[list[dict[str, Any]], bool]:
    """Messages of a chat, and whether the last one is gone on with. Raises: HttpError 400."""
    asked = unneutral(request, COUNT_NEUTRAL)
    if asked is not None:
        raise unsupported(*asked)
    messages = _messages(request)
    return messages, _is_open(messages)


def _messages(request: CountTokensRequest) -> list[dict[str, Any]]:
    found = []
    if request.system:
        found.append({"role": "system", "content": _text(request.system, "system")})
    for index, message in enumerate(request.messages):
        if message.role not in ("user", "assistant"):
            raise HttpError(
                400, f"messages[{index}] has role {message.role!r:.40}; it is user or assistant", param="messages"
            )
        found.append({"role": message.role, "content": _text(message.content, f"messages[{index}].content")})
    return merged(found)


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for index, block in enumerate(content):
        text = block.get("text")
        if block.get("type") != "text" or not isinstance(text, str):
            kind = block.get("type")
            raise HttpError(
                400,
                f"{where}[{index}] is a block of type {kind!r:.40}; this model takes blocks of type 'text' with a text",
                param=where.partition("[")[0],
            )
        texts.append(text)
    return "\n".join(texts)


def _is_open(messages: list[dict[str, Any]]) -> bool:
    return bool(messages[-1]["role"] == "assistant")
