"""/v1/responses/{id}: get, follow, cancel and delete those that are stored."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from albireo.server.accounts import Account
from albireo.server.errors import HttpError
from albireo.server.event_stream import KEEP_ALIVE, EventStream
from albireo.server.protocol.responses import Deleted
from albireo.server.response_answer import ResponseWriter
from albireo.server.response_store import ResponseStore, Stored
from albireo.server.serving import Serving

_ENCODER = msgspec.json.Encoder()
#: Events that are made at once; a reader gets the next ones when it has taken these.
_NUM_AT_ONCE = 64
_SWITCHES = {"true": True, "1": True, "false": False, "0": False}


class Follower:
    """The events of a response from a number on, those that are still to come too, as an ASGI application.

    It keeps nothing but its place: events are made when the reader takes them, and one that leaves disturbs nothing.
    """

    def __init__(self, serving: Serving, writer: ResponseWriter, number: int) -> None:
        self._serving, self._writer, self._number = serving, writer, number

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        now = time.monotonic()
        writer, log = self._writer, self._writer.log
        events = EventStream(scope, send, Account(writer.answer.id, scope["path"], now, now, 0, 0, 0))
        leaving = asyncio.create_task(_until_gone(receive))
        interval_s = self._serving.settings.sse_keep_alive_interval or None
        self._serving.streams.add(events)
        try:
            while not leaving.done():
                end = min(len(log), self._number + _NUM_AT_ONCE)
                if self._number < end:
                    await events.put(b"".join(map(writer.event, range(self._number, end))))
                    self._number = end
                elif log.is_over:
                    await events.end(b"")
                    return
                elif not await _first([log.more(), asyncio.shield(leaving)], interval_s):
                    await events.put(KEEP_ALIVE)
        finally:
            leaving.cancel()
            self._serving.streams.discard(events)


class StoredResponses:
    """What can be done with a response that is stored."""

    def __init__(self, serving: Serving, store: ResponseStore) -> None:
        self._serving, self._store = serving, store

    async def one(self, http: Request) -> ASGIApp:
        """GET: the response, or its events. DELETE: keep it no more."""
        name = http.path_params["name"]
        stored = self._store.get(name)
        if http.method == "DELETE":
            await _cancel(stored)
            self._store.drop(name)
            return whole(Deleted(name))
        number = _first_event(http)
        if number is None or http.method == "HEAD":
            return whole(stored.answer)
        num_events = len(stored.writer.log)
        if number > num_events:
            raise HttpError(
                400,
                f"starting_after={number - 1} is beyond the last event so far, which is {num_events - 1}",
                param="starting_after",
                code="invalid_value",
            )
        return Follower(self._serving, stored.writer, number)

    async def cancel(self, http: Request) -> Response:
        """POST: end one that runs in the background. One that is over stays as it is."""
        stored = self._store.get(http.path_params["name"])
        if not stored.answer.background:
            raise HttpError(400, "only a response that was created with background can be cancelled")
        await _cancel(stored)
        return whole(stored.answer)


def whole(answer: Any, headers: dict[str, str] | None = None) -> Response:
    """An answer that is whole."""
    return Response(_ENCODER.encode(answer), 200, headers, "application/json")


def _first_event(http: Request) -> int | None:
    """The number of the first event that is wanted; None: no stream is. Raises: HttpError 400."""
    asked, after = http.query_params.get("stream", "false"), http.query_params.get("starting_after")
    if asked not in _SWITCHES:
        raise HttpError(400, f"stream={asked!r:.40} must be true or false", param="stream", code="invalid_value")
    if after is None:
        return 0 if _SWITCHES[asked] else None
    if not _SWITCHES[asked]:
        raise HttpError(400, "starting_after needs stream to be true", param="starting_after")
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise HttpError(
            400,
            f"starting_after={after!r:.40} must be the sequence_number of an event",
            param="starting_after",
            code="invalid_value",
        )
    return int(after) + 1


async def _cancel(stored: Stored) -> None:
    task = stored.task
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            stored.task = None
            stored.writer.cancel()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _first(waits: list[Any], patience_s: float | None) -> bool:
    """Wait for one of them, so many seconds; None: as long as it takes. Returns: whether there is one."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for task in tasks:
            task.cancel()
