"""/v1/responses: create, whole, streamed or in the background; get, cancel and delete those that are stored."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from albireo.api.admission import Submission
from albireo.server import intake
from albireo.server.body import ClientGone, parse
from albireo.server.dialects import responses as dialect
from albireo.server.errors import HttpError
from albireo.server.generation import Generation, new_id
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.responses import Deleted, ResponseRequest
from albireo.server.response_answer import ResponseWriter
from albireo.server.response_store import ResponseStore, Stored
from albireo.server.serving import Serving
from albireo.server.streaming import Framing, stream

_DECODER = msgspec.json.Decoder(ResponseRequest)
_LOG = logging.getLogger("albireo.server")
_ENCODER = msgspec.json.Encoder()


class Responses:
    """The endpoint that creates, as an ASGI application."""

    def __init__(self, serving: Serving, store: ResponseStore) -> None:
        self._serving, self._store = serving, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_s = time.monotonic()
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = parse(body, _DECODER)
                messages, chat, submissions = await self._admit(request)
            writer = ResponseWriter(serving, request, chat, new_id("resp", None), submissions[0])
            stored = Stored(writer.answer, messages)
            if request.background:
                self._start(scope, stored, chat, writer, submissions, received_s)
                await _json(writer.answer)(scope, receive, send)
                return
            async with self._generation(scope, receive, writer, submissions, received_s) as generation:
                with dialect.in_its_words(chat):
                    if request.stream:
                        await self._stream(generation, writer, send)
                    else:
                        await generation.finished()
                if not request.stream:
                    writer.finish(generation.requests[0])
                if request.store is not False and writer.answer.status != "in_progress":
                    self._store.put(stored)
                if not request.stream:
                    headers = {"x-request-id": writer.answer.id}
                    await generation.answer(_json(writer.answer, headers), send)
        except ClientGone:
            return

    async def _admit(self, request: ResponseRequest) -> tuple[list[dict[str, Any]], ChatRequest, list[Submission]]:
        """The conversation so far, the request as a chat, and what the engine gets."""
        self._serving.check_open()
        dialect.check(request)
        messages = dialect.messages_of(request)
        if request.previous_response_id is not None:
            earlier = self._store.get(request.previous_response_id)
            if earlier.answer.status not in ("completed", "incomplete"):
                words = f"that response is {earlier.answer.status}; only one that has ended can be gone on with"
                raise HttpError(400, words, param="previous_response_id")
            messages = [*earlier.messages, *dialect.said(earlier.answer), *messages]
        chat = dialect.as_chat(request, messages)
        with dialect.in_its_words(chat):
            return messages, chat, await intake.chat(self._serving, chat)

    def _generation(
        self,
        scope: Scope,
        receive: Receive,
        writer: ResponseWriter,
        submissions: list[Submission],
        received_s: float,
    ) -> Generation:
        request = writer.request
        return Generation(
            self._serving,
            scope,
            receive,
            writer.answer.id,
            submissions,
            priority=request.priority or 0,
            received_s=received_s,
            wants_stream=bool(request.stream),
        )

    async def _stream(self, generation: Generation, writer: ResponseWriter, send: Send) -> None:
        tracked = generation.requests[0]
        await stream(
            self._serving,
            generation,
            send,
            writer.events,
            tells_tokens=False,
            last=lambda: writer.last_events(tracked),
            framing=Framing(writer.event, writer.failed_event, b""),
        )

    # -- in the background ---------------------------------------------------------------------------------------------

    def _start(
        self,
        scope: Scope,
        stored: Stored,
        chat: ChatRequest,
        writer: ResponseWriter,
        submissions: list[Submission],
        received_s: float,
    ) -> None:
        self._store.check_background()
        generation = self._generation(dict(scope), _nobody_leaves, writer, submissions, received_s)
        stored.task = asyncio.create_task(self._run(generation, stored, chat, writer))
        self._store.put(stored)

    async def _run(self, generation: Generation, stored: Stored, chat: ChatRequest, writer: ResponseWriter) -> None:
        try:
            async with generation:
                writer.answer.status = "in_progress"
                with dialect.in_its_words(chat):
                    await generation.finished()
                writer.finish(generation.requests[0])
        except HttpError as error:
            writer.fail(error)
        except Exception as error:
            _LOG.error("a response failed in the background", exc_info=error)
            writer.fail(HttpError(500, "internal error; the server's log has more", code="internal"))
        finally:
            stored.task = None
            self._store.put(stored)


class StoredResponses:
    """What can be done with a response that is stored."""

    def __init__(self, store: ResponseStore) -> None:
        self._store = store

    async def one(self, http: Request) -> Response:
        """GET: the response. DELETE: keep it no more."""
        name = http.path_params["name"]
        stored = self._store.get(name)
        if http.method == "DELETE":
            await _cancel(stored)
            self._store.drop(name)
            return _json(Deleted(name))
        for field in ("stream", "starting_after"):
            if http.query_params.get(field, "false") != "false":
                raise HttpError(400, f"{field} is not supported for stored responses; leave it out", param=field)
        return _json(stored.answer)

    async def cancel(self, http: Request) -> Response:
        """POST: end one that runs in the background. One that is over stays as it is."""
        stored = self._store.get(http.path_params["name"])
        if not stored.answer.background:
            raise HttpError(400, "only a response that was created with background can be cancelled")
        await _cancel(stored)
        return _json(stored.answer)


async def _cancel(stored: Stored) -> None:
    task = stored.task
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            stored.task, stored.answer.status = None, "cancelled"


async def _nobody_leaves() -> Message:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets it")


def _json(answer: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(_ENCODER.encode(answer), 200, headers, "application/json")
