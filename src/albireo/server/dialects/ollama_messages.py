"""Messages of Ollama's protocol -> messages of a chat: texts, images, thoughts, calls of tools and their results.

Used by ollama.py beside it. Does not know what else a request asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from albireo.server.dialects.texts import call, image
from albireo.server.errors import HttpError
from albireo.server.protocol.ollama import Message

_ROLES = ("system", "user", "assistant", "tool")
_NUM_SHOWN = 12


def messages_of(given: Sequence[Message]) -> list[dict[str, Any]]:
    """The conversation. A call without an id gets one, and a result that names no call belongs to the first call of its
    tool, or else of any, that has none. Raises: HttpError 400."""
    found: list[dict[str, Any]] = []
    open_calls: list[tuple[str, str]] = []  # ids and names of those without a result
    for index, message in enumerate(given):
        where, role = f"messages[{index}]", message.role.lower()
        if role not in _ROLES:
            raise _wrong(where, f"has role {message.role!r:.40}; it is {', '.join(_ROLES)}")
        said: dict[str, Any] = {"role": role, "content": _content(message, where)}
        if message.thinking:
            said["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [
                _call(each, f"{where}.tool_calls[{place}]", index, place)
                for place, each in enumerate(message.tool_calls)
            ]
            open_calls += [(each["id"], each["function"]["name"]) for each in calls]
            said["tool_calls"] = calls
        if role == "tool":
            said |= _answered(message, open_calls)
        found.append(said)
    return found


def _content(message: Message, where: str) -> str | list[dict[str, Any]]:
    text = message.content or ""
    if not message.images:
        return text
    parts = [_image(data, f"{where}.images[{place}]") for place, data in enumerate(message.images)]
    return [*parts, {"type": "text", "text": text}] if text else parts


def _image(data: str, where: str) -> dict[str, Any]:
    """Of base64, whose kind its bytes say, or of a data: URL."""
    if data.startswith(("http://", "https://", "file://")):
        raise _wrong(where, f"is {data[:_NUM_SHOWN]!r}…; the base64 of an image is wanted")
    return image(data if data.startswith("data:") else f"data:image/png;base64,{data}")


def _call(given: dict[str, Any], where: str, index: int, place: int) -> dict[str, Any]:
    function = given.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(name, str) or not isinstance(arguments, (dict, str, type(None))):
        raise _wrong(
            f"{where}.tool_calls[{place}]",
            f"needs function, with a name and arguments, an object; it is {function!r:.60}",
        )
    call_id = given.get("id")
    return call(call_id if isinstance(call_id, str) and call_id else f"call_{index}_{place}", name, arguments or {})


def _answered(message: Message, open_calls: list[tuple[str, str]]) -> dict[str, Any]:
    """Of which call a message is the result; that one is open no more."""
    fits = (
        [each for each in open_calls if each[0] == message.tool_call_id]
        or [each for each in open_calls if each[1] == message.tool_name]
        or ([] if message.tool_call_id or message.tool_name else open_calls[:1])
    )
    call_id, name = fits[0] if fits else (message.tool_call_id or "", message.tool_name or "")
    if fits:
        open_calls.remove(fits[0])
    return {"tool_call_id": call_id, **({"name": message.tool_name or name} if message.tool_name or name else {})}


def _wrong(where: str, what: str) -> HttpError:
    return HttpError(400, f"{where} {what}", param="messages")
