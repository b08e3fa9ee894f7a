"""Messages of Ollama's protocol -> messages of a chat: texts, images, thoughts, calls of tools and their results.

Used by ollama.py beside it. Does not know what else a request asks for.
"""

from __future__ import annotations

from collections import deque
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
    open_calls = _OpenCalls()
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
            for each in calls:
                open_calls.add(each["id"], each["function"]["name"])
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
            where,
            f"needs function, with a name and arguments, an object; it is {function!r:.60}",
        )
    call_id = given.get("id")
    return call(call_id if isinstance(call_id, str) and call_id else f"call_{index}_{place}", name, arguments or {})


class _OpenCalls:
    """Calls that have no result yet, in order. A result is told apart in the time of one, however many there are."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, str]] = {}  # by number: id and name
        self._numbers: dict[tuple[str, str], deque[int]] = {}  # by ("id" or "name", what it is), closed ones among them
        self._num_seen = 0

    def add(self, call_id: str, name: str) -> None:
        """One more."""
        self._calls[self._num_seen] = call_id, name
        for key in (("id", call_id), ("name", name)):
            self._numbers.setdefault(key, deque()).append(self._num_seen)
        self._num_seen += 1

    def close(self, call_id: str | None, name: str | None) -> tuple[str, str] | None:
        """The one that a result is of; it is open no more. None: there is none such."""
        number = self._first(("id", call_id or ""))
        if number is None:
            number = self._first(("name", name or ""))
        if number is None and not (call_id or name):
            number = next(iter(self._calls), None)
        return None if number is None else self._calls.pop(number)

    def _first(self, key: tuple[str, str]) -> int | None:
        numbers = self._numbers.get(key, deque())
        while numbers and numbers[0] not in self._calls:
            numbers.popleft()
        return numbers[0] if numbers else None


def _answered(message: Message, open_calls: _OpenCalls) -> dict[str, Any]:
    """Of which call a message is the result; that one is open no more."""
    found = open_calls.close(message.tool_call_id, message.tool_name)
    call_id, name = found or (message.tool_call_id or "", message.tool_name or "")
    return {"tool_call_id": call_id, **({"name": message.tool_name or name} if message.tool_name or name else {})}


def _wrong(where: str, what: str) -> HttpError:
    return HttpError(400, f"{where} {what}", param="messages")
