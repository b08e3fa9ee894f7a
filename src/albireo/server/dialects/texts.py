"""What conversations of other protocols have in common.

Used by the dialects beside it. Does not know protocols.
"""

from __future__ import annotations

from typing import Any

#: Fields of a message that are texts.
_TEXTS = ("reasoning_content", "content")


def merged(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages of one role in a row as one, since many templates want roles that alternate: thoughts, texts and calls
    of an assistant come together so. Results of tools stay one each, since each names its call."""
    found: list[dict[str, Any]] = []
    for message in messages:
        if found and found[-1]["role"] == message["role"] != "tool":
            found[-1] = _joined(found[-1], message)
        else:
            found.append(message)
    return [
        message if "content" in message or "tool_calls" in message else {**message, "content": ""} for message in found
    ]


def call(call_id: str, name: str, arguments: Any) -> dict[str, Any]:
    """A call, as messages of chats hold it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def num_chars(messages: list[dict[str, Any]]) -> int:
    """Characters of messages: of their texts and calls."""
    return sum(_num_chars(value) for message in messages for value in message.values())


def _num_chars(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(name) + _num_chars(each) for name, each in value.items())
    if isinstance(value, list):
        return sum(map(_num_chars, value))
    return len(value) if isinstance(value, str) else 8


def image(url: Any) -> dict[str, Any]:
    """An image, as contents of chats hold it."""
    return {"type": "image_url", "image_url": url if isinstance(url, dict) else {"url": url}}


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _joined(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    for name in _TEXTS:
        texts = [message[name] for message in (one, other) if message.get(name) is not None]
        if any(isinstance(text, list) for text in texts):
            both[name] = [part for text in texts for part in _parts(text)]
        elif texts:
            both[name] = "\n".join(texts)
    calls = [*one.get("tool_calls", ()), *other.get("tool_calls", ())]
    if calls:
        both["tool_calls"] = calls
    return both
