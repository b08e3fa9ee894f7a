"""/v1/conversations: what is said in several responses, kept for who asks; responses.py goes on with it."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.server.body import parse
from albireo.server.conversation_store import Conversation, ConversationStore, Item
from albireo.server.dialects import responses as dialect
from albireo.server.errors import HttpError
from albireo.server.protocol.conversations import (
    ConversationAsk,
    ConversationChange,
    ConversationDeleted,
    ConversationTold,
    ItemList,
    MoreItems,
)
from albireo.server.response_store import ResponseStore
from albireo.server.serving import Serving

A = TypeVar("A", bound=msgspec.Struct)
_ASK, _CHANGE = msgspec.json.Decoder(ConversationAsk), msgspec.json.Decoder(ConversationChange)
_MORE = msgspec.json.Decoder(MoreItems)
#: Items of a page, unless it is said, and at most.
_LIMIT, _MAX_LIMIT = 20, 100
_QUERIES = ("limit", "after", "order")


class Conversations:
    """The endpoints."""

    def __init__(self, serving: Serving, responses: ResponseStore) -> None:
        self._serving, self._responses = serving, responses
        self._store: ConversationStore = responses.conversations

    async def create(self, http: Request) -> Response:
        """A new one, which may be empty."""
        self._serving.check_open()
        ask = await self._asked(http, _ASK, empty=ConversationAsk())
        made = self._store.make(self._readable(ask.items or []), ask.metadata or {})
        return _json(_told(made))

    async def one(self, http: Request) -> Response:
        """GET it, POST other metadata, or DELETE it."""
        found = self._store.get(http.path_params["name"])
        if http.method == "DELETE":
            self._store.drop(found.id)
            return _json(ConversationDeleted(found.id))
        if http.method == "POST":
            found.metadata = (await self._asked(http, _CHANGE)).metadata
        return _json(_told(found))

    async def items(self, http: Request) -> Response:
        """GET a page of its items, or POST more."""
        found = self._store.get(http.path_params["name"])
        if http.method == "POST":
            self._serving.check_open()
            ask = await self._asked(http, _MORE)
            return _json(_listed(self._store.add(found, self._readable(ask.items)), has_more=False))
        limit, after, is_ascending = _page(http)
        ordered = found.items if is_ascending else found.items[::-1]
        names = [each.id for each in ordered]
        if after is not None and after not in names:
            raise HttpError(400, f"after={after!r:.80} must be the id of an item of the conversation", param="after")
        left = ordered if after is None else ordered[names.index(after) + 1 :]
        return _json(_listed(left[:limit], has_more=len(left) > limit))

    async def item(self, http: Request) -> Response:
        """GET one of its items, or DELETE it, which answers with the conversation."""
        found, name = self._store.get(http.path_params["name"]), http.path_params["item"]
        place = next((place for place, each in enumerate(found.items) if each.id == name), None)
        if place is None:
            raise HttpError(404, f"there is no item {name!r:.140} in this conversation", code="item_not_found")
        if http.method == "DELETE":
            self._store.drop_item(found, place)
            return _json(_told(found))
        return Response(found.items[place].told, media_type="application/json")

    def _readable(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The items, those that are referred to as themselves. Raises: HttpError 400 for what no response could go on
        with."""
        found = dialect.resolved(items, self._responses.item, "items")
        dialect.messages_of_items(found, "items")
        return found

    async def _asked(self, http: Request, decoder: msgspec.json.Decoder[A], empty: A | None = None) -> A:
        async with self._serving.bodies.read(http.scope, http.receive) as body:
            if empty is not None and not body.strip():
                return empty
            return parse(body, decoder)


def _page(http: Request) -> tuple[int, str | None, bool]:
    """Raises: HttpError 400."""
    query = http.query_params
    for name in query:
        if name not in _QUERIES:
            words = f"{name!r:.60} is not known here; there are {', '.join(_QUERIES)}"
            raise HttpError(400, words, param=name[:60])
    asked, order = query.get("limit", str(_LIMIT)), query.get("order", "desc")
    if not (asked.isascii() and asked.isdigit() and len(asked) < 10 and 1 <= int(asked) <= _MAX_LIMIT):
        raise HttpError(400, f"limit={asked!r:.40} must be a number from 1 to {_MAX_LIMIT}", param="limit")
    if order not in ("asc", "desc"):
        raise HttpError(400, f"order={order!r:.40} must be asc or desc", param="order")
    return int(asked), query.get("after"), order == "asc"


def _told(conversation: Conversation) -> ConversationTold:
    return ConversationTold(conversation.id, conversation.created_at, conversation.metadata)


def _listed(items: list[Item], *, has_more: bool) -> ItemList:
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return ItemList([msgspec.Raw(each.told) for each in items], first, last, has_more)


def _json(answer: Any) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")
