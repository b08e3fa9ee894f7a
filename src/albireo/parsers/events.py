"""What the text of a model turns out to be: content, reasoning, tool calls. Plain data, in the order it was written.

Made by the parsers of this room, mapped onto a protocol's deltas by whoever serves one. Does not know protocols.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thought before its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallStart:
    """A tool call begins. index: of the call in this output, from 0. name: of the function."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolCallArguments:
    """More of a call's arguments: JSON, as the model wrote it."""

    index: int
    delta: str


@dataclass(frozen=True, slots=True)
class ToolCallEnd:
    """A tool call is over. is_complete: False when the output ended, or went wrong, inside its arguments."""

    index: int
    is_complete: bool = True


Event = TextDelta | ReasoningDelta | ToolCallStart | ToolCallArguments | ToolCallEnd


def joined(events: Iterable[Event]) -> list[Event]:
    """The same events with neighbouring deltas of one kind made one, and empty ones left out. Cost: O(text)."""
    groups: list[list[Event]] = []
    for event in events:
        if _text(event) == "":
            continue
        if groups and _text(event) is not None and _kind(groups[-1][0]) == _kind(event):
            groups[-1].append(event)
        else:
            groups.append([event])
    return [group[0] if len(group) == 1 else _join(group) for group in groups]


def _text(event: Event) -> str | None:
    if isinstance(event, (TextDelta, ReasoningDelta)):
        return event.text
    return event.delta if isinstance(event, ToolCallArguments) else None


def _kind(event: Event) -> tuple[type, int]:
    return type(event), event.index if isinstance(event, ToolCallArguments) else -1


def _join(group: list[Event]) -> Event:
    first, text = group[0], "".join(_text(event) or "" for event in group)
    if isinstance(first, ToolCallArguments):
        return ToolCallArguments(first.index, text)
    return ReasoningDelta(text) if isinstance(first, ReasoningDelta) else TextDelta(text)
