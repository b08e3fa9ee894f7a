"""Events of an output parser -> the message of a chat, or what is new of it.

Used by the chat endpoint. Does not know how the events were found.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from albireo.parsers.events import Event, ReasoningDelta, TextDelta, ToolCallArguments, ToolCallStart
from albireo.server.protocol.chat import ChatMessage, Delta, FunctionCall, FunctionDelta, ToolCall, ToolCallDelta


def message(events: Iterable[Event], *, tells_reasoning: bool, is_one_call: bool) -> ChatMessage:
    """The whole message. Args: is_one_call: calls after the first are left out."""
    all_of_it = delta(events, tells_reasoning=tells_reasoning, is_one_call=is_one_call)
    found = ChatMessage("" if all_of_it.content is UNSET else all_of_it.content)
    if all_of_it.tool_calls is not UNSET:
        found.content = found.content or None
        found.tool_calls = [
            ToolCall(str(each.id), FunctionCall(str(each.function.name), each.function.arguments))
            for each in all_of_it.tool_calls
        ]
    found.reasoning = found.reasoning_content = all_of_it.reasoning
    return found


def delta(events: Iterable[Event], *, tells_reasoning: bool, is_one_call: bool) -> Delta:
    """What is new of a message; all of one call in one entry."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: dict[int, ToolCallDelta] = {}
    for event in events:
        if isinstance(event, TextDelta):
            texts.append(event.text)
        elif isinstance(event, ReasoningDelta):
            thoughts.append(event.text)
        elif is_one_call and event.index > 0:
            continue
        elif isinstance(event, ToolCallStart):
            calls[event.index] = ToolCallDelta(event.index, FunctionDelta("", event.name), id=event.id, type="function")
        elif isinstance(event, ToolCallArguments):
            call = calls.setdefault(event.index, ToolCallDelta(event.index, FunctionDelta("")))
            call.function.arguments += event.delta
    found = Delta()
    if texts:
        found.content = "".join(texts)
    if thoughts and tells_reasoning:
        found.reasoning = found.reasoning_content = "".join(thoughts)
    if calls:
        found.tool_calls = list(calls.values())
    return found
