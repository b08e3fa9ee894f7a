"""Messages as OpenAI's clients send them -> as chat templates read them: arguments of tool calls are objects there, and
the role developer is known to few.

Used by intake.py. Shapes are checked where a chat is rendered; what is not understood passes through.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: OpenAI's name of what its older models, and nearly all others, call system.
_DEVELOPER = "developer"


def readable(messages: list[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages, with the arguments of earlier calls as objects in place of their JSON, and what a developer says
    as the system's, unless the template tells the two apart: many leave out what has a role that they do not know."""
    if _DEVELOPER not in template:
        messages = [{**each, "role": "system"} if each.get("role") == _DEVELOPER else each for each in messages]
    return [_with_objects(message) if message.get("tool_calls") else message for message in messages]


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    calls = message["tool_calls"]
    return {**message, "tool_calls": [_call(call) for call in calls]} if isinstance(calls, list) else message


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = msgspec.json.decode(function["arguments"] or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return call  # a model may have been cut off; the template gets the text
    return {**call, "function": {**function, "arguments": arguments}}
