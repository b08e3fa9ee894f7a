"""/v1/conversations: requests and answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from albireo.server.protocol.fields import PathId

Items = Annotated[list[dict[str, Any]], Meta(max_length=4096)]
#: OpenAI's limits: it is kept, and counted nowhere.
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class ConversationAsk(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """items: what it begins with, as of a response's input."""

    items: Items | None = None
    metadata: Metadata | None = None


class ConversationChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """metadata: in place of what there is."""

    metadata: Metadata


class MoreItems(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """items: at the end."""

    items: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=4096)]


class ConversationName(msgspec.Struct, forbid_unknown_fields=True):
    """As responses may name one."""

    id: PathId


class ConversationTold(msgspec.Struct):
    """One of them, without what is said in it."""

    id: str
    created_at: int
    metadata: dict[str, str]
    object: str = "conversation"


class ConversationDeleted(msgspec.Struct):
    """One that is kept no more."""

    id: str
    object: str = "conversation.deleted"
    deleted: bool = True


class ItemList(msgspec.Struct):
    """Some of its items. data: each as JSON."""

    data: list[msgspec.Raw]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"
