"""Parsers fed with a text in pieces, and what came of it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from albireo.parsers.events import Event, TextDelta, ToolCallArguments, ToolCallEnd, ToolCallStart, joined


def numbered(index: int) -> str:
    return f"call{index}"


def fed(parser: Any, pieces: Iterable[str]) -> list[Event]:
    events: list[Event] = []
    for piece in pieces:
        events += parser.push(piece)
    return joined([*events, *parser.finish()])


def cut(text: str, chance: random.Random) -> list[str]:
    """The text in random pieces, some of them empty."""
    places = sorted(chance.randrange(len(text) + 1) for _ in range(chance.randrange(12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


def call(index: int, name: str, arguments: str, call_id: str | None = None, *, is_complete: bool = True) -> list[Event]:
    given: list[Event] = [ToolCallArguments(index, arguments)] if arguments else []
    return [ToolCallStart(index, call_id or numbered(index), name), *given, ToolCallEnd(index, is_complete)]


def text(content: str) -> list[Event]:
    return [TextDelta(content)]
