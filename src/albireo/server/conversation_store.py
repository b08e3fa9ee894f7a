"""Conversations that are kept for their clients: in memory, those used last, within a number and a size.

Used by endpoints/conversations.py and endpoints/responses.py. Items are a response's input and output as they were
given, kept as JSON: a list of nothing takes twenty times as much memory as it does in JSON. Does not know what they
mean.
"""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import msgspec

from albireo.server.errors import HttpError

#: Most conversations kept, and bytes of them all.
MAX_KEPT, MAX_BYTES = 1024, 64 << 20
#: Counted of an item beside its JSON: objects that hold it, and its id.
BYTES_BESIDE = 256
#: What ids of items begin with, by their type.
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}


@dataclass(frozen=True, slots=True)
class Item:
    """Of a conversation. Fields: id: no other one of it has it. told: as JSON."""

    id: str
    told: bytes

    @property
    def num_bytes(self) -> int:
        """That it takes."""
        return len(self.told) + BYTES_BESIDE


@dataclass(slots=True, eq=False)
class Conversation:
    """One of them. Fields: num_bytes: of its items."""

    id: str
    created_at: int
    metadata: dict[str, str]
    items: list[Item] = field(default_factory=list)
    num_bytes: int = 0

    def read(self) -> list[dict[str, Any]]:
        """Its items."""
        return [msgspec.json.decode(each.told) for each in self.items]


class ConversationStore:
    """By id. Invariant: what is kept is within the limits."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Conversation] = OrderedDict()
        self._num_bytes = 0

    def make(self, items: Sequence[dict[str, Any]], metadata: dict[str, str]) -> Conversation:
        """A new one. Raises: HttpError 400 for more than may be kept."""
        made = Conversation(f"conv_{uuid.uuid4().hex}", int(time.time()), metadata)
        self._kept[made.id] = made
        try:
            self.add(made, items)
        except HttpError:
            self.drop(made.id)
            raise
        return made

    def get(self, name: str) -> Conversation:
        """Raises: HttpError 404."""
        found = self._kept.get(name)
        if found is None:
            words = f"there is no conversation {name!r:.140}, or it is kept no more"
            raise HttpError(404, words, param="conversation", code="conversation_not_found")
        self._kept.move_to_end(name)
        return found

    def add(self, conversation: Conversation, items: Sequence[dict[str, Any]]) -> list[Item]:
        """At its end, each with an id; conversations that nobody used for longest make room. Nothing, where it is kept
        no more. Raises: HttpError 400 for more than may be kept."""
        if conversation.id not in self._kept:
            return []
        added, taken = [], {item.id for item in conversation.items}
        for item in items:
            added.append(_item(item, taken))
            taken.add(added[-1].id)
        num_bytes = sum(item.num_bytes for item in added)
        if conversation.num_bytes + num_bytes > MAX_BYTES:
            words = f"a conversation of more than {MAX_BYTES} bytes is not kept; begin another one"
            raise HttpError(400, words, param="items", code="conversation_full")
        conversation.items += added
        self._grow(conversation, num_bytes)
        self._kept.move_to_end(conversation.id)
        while len(self._kept) > MAX_KEPT or self._num_bytes > MAX_BYTES:
            self.drop(next(iter(self._kept)))
        return added

    def drop(self, name: str) -> None:
        """Keep it no more."""
        if (found := self._kept.pop(name, None)) is not None:
            self._num_bytes -= found.num_bytes

    def drop_item(self, conversation: Conversation, place: int) -> None:
        """One item of it."""
        gone = conversation.items.pop(place)
        self._grow(conversation, -gone.num_bytes)

    def _grow(self, conversation: Conversation, num_bytes: int) -> None:
        conversation.num_bytes += num_bytes
        self._num_bytes += num_bytes


def _item(given: dict[str, Any], taken: Set[str]) -> Item:
    """As it is told: with its type, an id and a status, and a message's text as a part of it. Args: taken: ids of
    others; pages are asked for by the last one of those before."""
    kind, name = given.get("type") or "message", given.get("id")
    if not isinstance(name, str) or not name or name in taken:
        name = f"{_PREFIXES.get(kind, 'item')}_{uuid.uuid4().hex}"
    told: dict[str, Any] = {"id": name, "type": kind, "status": "completed"}
    told |= {key: value for key, value in given.items() if key != "id" and value is not None}
    if kind == "message" and isinstance(given.get("content"), str):
        said: dict[str, Any] = {"type": "input_text", "text": given["content"]}
        if given.get("role") == "assistant":
            said |= {"type": "output_text", "annotations": []}
        told["content"] = [said]
    return Item(name, msgspec.json.encode(told))
