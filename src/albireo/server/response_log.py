"""What happened to one response, as small numbers: enough to make each of its events again, for whoever asks later.

Written by response_answer.py, which knows how an event looks; read by those who follow a response. Does not know texts.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable
from typing import NamedTuple

#: What an event tells: how the response stands, or something about one of its blocks.
WHATS = ("created", "queued", "in_progress", "over", "begin", "more", "end")
#: Bytes that an event takes: its entry, and a piece of the text where it brings one.
BYTES_PER_EVENT = 80


class Entry(NamedTuple):
    """block: its index. part: of the block's text, for "more"; else which of the events that are told of this."""

    what: str
    block: int = 0
    part: int = 0


class ResponseLog:
    """Events are numbered from 0, in order. Invariant: what an entry says never changes.

    Attributes: is_over: no more come.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._whats, self._blocks, self._parts = array("B"), array("I"), array("I")
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._whats)

    def __getitem__(self, number: int) -> Entry:
        return Entry(WHATS[self._whats[number]], self._blocks[number], self._parts[number])

    def add(self, entry: Entry) -> None:
        """The next one. Nothing follows what is over."""
        if self.is_over:
            return
        self._whats.append(WHATS.index(entry.what))
        self._blocks.append(entry.block)
        self._parts.append(entry.part)
        self.is_over = entry.what == "over"
        self._news.set()
        self._news = asyncio.Event()

    def more(self) -> Awaitable[object]:
        """To be awaited: until there are more than now, at the time of this call."""
        return self._news.wait()
