"""Responses that can be asked for again: in memory, the newest of them, within a number and a size.

Used by endpoints/responses.py. Does not know protocols.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from albireo.server.conversation_store import Conversation, ConversationStore
from albireo.server.dialects.texts import num_chars
from albireo.server.errors import HttpError, busy
from albireo.server.protocol.responses import OutputItem, ResponseAnswer
from albireo.server.response_answer import ResponseWriter
from albireo.server.response_log import BYTES_PER_EVENT

#: Most responses kept, and characters of them and of the conversations that led to them.
MAX_KEPT, MAX_CHARS = 1024, 64 << 20
#: Most that run without anybody waiting for them.
MAX_BACKGROUND = 256


@dataclass(slots=True)
class Stored:
    """One response. Fields: messages: the conversation up to its answer; task: while it runs in the background.
    conversation, items: that it goes on with, and what its request brings to it, until that is said there."""

    writer: ResponseWriter
    messages: list[dict[str, Any]]
    task: asyncio.Task[None] | None = None
    num_chars: int = 0
    conversation: Conversation | None = None
    items: list[dict[str, Any]] = field(default_factory=list)

    @property
    def answer(self) -> ResponseAnswer:
        """What there is of it."""
        return self.writer.answer


class ResponseStore:
    """By id. Invariant: what is kept is within the limits; one that runs is not dropped.

    Attributes: conversations: those that are kept, for responses to go on with.
    """

    def __init__(self, conversations: ConversationStore | None = None) -> None:
        """Args: conversations: those that responses go on with; None: its own."""
        self.conversations = ConversationStore() if conversations is None else conversations
        self._kept: OrderedDict[str, Stored] = OrderedDict()
        self._items: dict[str, OutputItem] = {}  # of the answers that are kept, by id
        self._num_chars = 0

    def get(self, response_id: str) -> Stored:
        """Raises: HttpError 404."""
        found = self._kept.get(response_id)
        if found is None:
            raise HttpError(
                404, f"there is no response {response_id!r:.140}, or it is kept no more", code="response_not_found"
            )
        return found

    def item(self, item_id: str) -> OutputItem:
        """One of an answer that is kept. Raises: HttpError 404."""
        found = self._items.get(item_id)
        if found is None:
            words = f"there is no item {item_id!r:.140}, or its response is kept no more; give the item itself"
            raise HttpError(404, words, param="input", code="item_not_found")
        return found

    def put(self, stored: Stored) -> None:
        """Keep one, or what became of one that is kept; the oldest ones make room."""
        self.drop(stored.answer.id)
        stored.num_chars = num_chars(stored.messages)
        stored.num_chars += len(msgspec.json.encode(stored.answer)) + BYTES_PER_EVENT * len(stored.writer.log)
        self._kept[stored.answer.id] = stored
        self._items |= {item.id: item for item in stored.answer.output}
        self._num_chars += stored.num_chars
        if self._is_full():
            for name in [name for name, each in self._kept.items() if each.task is None]:
                self.drop(name)
                if not self._is_full():
                    break

    def _is_full(self) -> bool:
        return len(self._kept) > MAX_KEPT or self._num_chars > MAX_CHARS

    def drop(self, response_id: str) -> None:
        """Keep it no more."""
        stored = self._kept.pop(response_id, None)
        if stored is not None:
            self._num_chars -= stored.num_chars
            for item in stored.answer.output:
                self._items.pop(item.id, None)

    @property
    def num_running(self) -> int:
        """Those that run in the background."""
        return sum(stored.task is not None for stored in self._kept.values())

    def __contains__(self, response_id: str) -> bool:
        return response_id in self._kept

    def check_background(self) -> None:
        """Raises: HttpError 429 when too many run in the background."""
        if self.num_running >= MAX_BACKGROUND:
            raise busy(429, f"{MAX_BACKGROUND} responses run in the background already", "queue_full")
