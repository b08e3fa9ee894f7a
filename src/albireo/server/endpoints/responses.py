"""/v1/responses: create, whole, streamed, or in the background; stored_responses.py has the rest."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.server import intake
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.conversation_store import Conversation
from albireo.server.dialects import responses as dialect
from albireo.server.dialects.response_tools import without_hosted
from albireo.server.endpoints.stored_responses import Follower, whole
from albireo.server.errors import HttpError
from albireo.server.fitting import fitted, without_oldest
from albireo.server.generation import Generation, answer_id, check, new_id
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.responses import InputTokens, ResponseRequest
from albireo.server.response_answer import ResponseWriter
from albireo.server.response_store import ResponseStore, Stored
from albireo.server.serving import Serving
from albireo.server.streaming import Cursors, Framing, Piece, stream

_DECODER = msgspec.json.Decoder(ResponseRequest)
_LOG = logging.getLogger("albireo.server")


class Responses:
    """The endpoint that creates, as an ASGI application."""

    def __init__(self, serving: Serving, store: ResponseStore) -> None:
        self._serving, self._store = serving, store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = parse(body, _DECODER)
                messages, chat, submissions = await self._admit(request)
            writer = ResponseWriter(serving, request, chat, self._id(scope, request), submissions[0])
            stored = Stored(writer, messages, conversation=self._of_conversation(request))
            if stored.conversation is not None:
                stored.items = dialect.items_of(request, self._store.item)
            if request.background:
                self._start(scope, stored, chat, submissions, arrival_s)
                shown = Follower(serving, writer, 0) if request.stream else whole(writer.answer)
                await shown(scope, receive, send)
                return
            async with self._generation(scope, receive, writer, submissions, arrival_s) as generation:
                with dialect.in_its_words(chat):
                    if request.stream:
                        await self._stream(generation, stored, send)
                    else:
                        await generation.finished()
                        # Nobody follows it yet, so that a thread may note its events.
                        await generation.made(lambda: writer.finish(generation.requests[0]))
                        self._keep(stored)
                if not request.stream:
                    headers = {"x-request-id": writer.answer.id}
                    await generation.answer(whole(writer.answer, headers), send)
        except ClientGone:
            return

    def _id(self, scope: Scope, request: ResponseRequest) -> str:
        """Of the answer. Raises: HttpError 400 where the caller gives one that is stored."""
        found = answer_id(self._serving, scope, "resp", request.request_id, is_in_path=True)
        if found not in self._store:
            return found
        if request.request_id is None:
            return new_id("resp", None)
        words = f"request_id {request.request_id!r} is that of a response that is stored; give each its own"
        raise HttpError(400, words, param="request_id")

    async def count(self, http: Request) -> Response:
        """POST /v1/responses/input_tokens: tokens of a conversation; nothing is answered or kept."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _DECODER)
        serving.check_model(request.model)
        chat = dialect.as_chat(request, self._conversation(request))
        with dialect.in_its_words(chat):
            count = InputTokens(await intake.num_tokens(serving, chat))
        return Response(msgspec.json.encode(count), media_type="application/json")

    async def _admit(self, request: ResponseRequest) -> tuple[list[dict[str, Any]], ChatRequest, list[Submission]]:
        """The conversation so far, the request as a chat, and what the engine gets."""
        self._serving.check_open()
        messages = self._conversation(request)
        return messages, *await self._fitting(request, messages)

    def _conversation(self, request: ResponseRequest) -> list[dict[str, Any]]:
        """With what an earlier response had of it. Raises: HttpError."""
        dialect.check(request)
        if self._serving.settings.leave_out_hosted_tools and request.tools:
            request.tools = without_hosted(request.tools)
        messages = dialect.messages_of(request, self._store.item)
        if (conversation := self._of_conversation(request)) is not None:
            messages = [*dialect.messages_of_items(conversation.read()), *messages]
        if request.previous_response_id is not None:
            earlier = self._store.get(request.previous_response_id)
            if earlier.answer.status not in ("completed", "incomplete"):
                words = f"that response is {earlier.answer.status}; only one that has ended can be gone on with"
                raise HttpError(400, words, param="previous_response_id")
            messages = [*earlier.messages, *dialect.said(earlier.answer), *messages]
        return messages

    def _of_conversation(self, request: ResponseRequest) -> Conversation | None:
        """Raises: HttpError 404."""
        name = dialect.conversation_id(request)
        return None if name is None else self._store.conversations.get(name)

    async def _fitting(
        self, request: ResponseRequest, messages: list[dict[str, Any]]
    ) -> tuple[ChatRequest, list[Submission]]:
        """The conversation; where it does not fit and may be cut, without as few of its oldest turns as can be."""
        shorter = without_oldest(messages) if request.truncation == "auto" else []
        return await fitted(messages, shorter, partial(self._taken_in, request))

    async def _taken_in(
        self, request: ResponseRequest, messages: list[dict[str, Any]], leaves_room: bool
    ) -> tuple[ChatRequest, list[Submission]]:
        chat = dialect.as_chat(request, messages)
        with dialect.in_its_words(chat):
            return chat, await intake.chat(self._serving, chat, leaves_room=leaves_room)

    def _generation(
        self,
        scope: Scope,
        receive: Receive,
        writer: ResponseWriter,
        submissions: list[Submission],
        arrival_s: float,
    ) -> Generation:
        request = writer.request
        return Generation(
            self._serving,
            scope,
            receive,
            writer.answer.id,
            submissions,
            priority=request.priority or 0,
            received_s=arrival_s,
            wants_stream=bool(request.stream or request.background),
        )

    async def _stream(self, generation: Generation, stored: Stored, send: Send) -> None:
        writer = stored.writer

        def last() -> list[int]:
            found = list(writer.finish(generation.requests[0]))
            self._keep(stored)  # before the reader can know that it is over
            return found

        def failed(error: HttpError) -> bytes:
            found = writer.fail(error)
            self._keep(stored)
            return found

        def take(piece: Piece) -> list[int]:
            return list(writer.take(piece))

        framing = Framing(writer.event, failed, b"")
        await stream(self._serving, generation, send, take, tells_tokens=False, last=last, framing=framing)

    def _keep(self, stored: Stored) -> None:
        self._note(stored)
        if stored.answer.store:
            self._store.put(stored)

    def _note(self, stored: Stored) -> None:
        """What was asked and answered is said in the conversation from now on; what is stored of it holds neither."""
        conversation, items = stored.conversation, stored.items
        stored.conversation, stored.items = None, []
        if conversation is None or stored.answer.status not in ("completed", "incomplete"):
            return
        try:
            said = msgspec.to_builtins(stored.answer.output)
            self._store.conversations.add(conversation, [*items, *said])
        except HttpError as error:
            _LOG.warning("response %s is not in its conversation: %s", stored.answer.id, error)

    # -- in the background ---------------------------------------------------------------------------------------------

    def _start(
        self,
        scope: Scope,
        stored: Stored,
        chat: ChatRequest,
        submissions: list[Submission],
        arrival_s: float,
    ) -> None:
        self._store.check_background()
        generation = self._generation(dict(scope), _nobody_leaves, stored.writer, submissions, arrival_s)
        stored.writer.begin()
        stored.task = asyncio.create_task(self._run(generation, stored, chat))
        self._store.put(stored)

    async def _run(self, generation: Generation, stored: Stored, chat: ChatRequest) -> None:
        writer = stored.writer
        try:
            async with generation:
                writer.go_on()
                with dialect.in_its_words(chat):
                    await _taken(generation, writer)
                writer.finish(generation.requests[0])
        except HttpError as error:
            writer.fail(error)
        except Exception as error:
            _LOG.error("a response failed in the background", exc_info=error)
            writer.fail(HttpError(500, "internal error; the server's log has more", code="internal"))
        finally:
            stored.task = None
            self._note(stored)
            self._store.put(stored)


async def _taken(generation: Generation, writer: ResponseWriter) -> None:
    """Read all of the text, as it comes. Raises: HttpError when the engine gave it up."""
    cursors = Cursors(generation)
    (tracked,) = generation.requests
    while not tracked.is_over:
        await generation.news()
        check(tracked)
        for piece in cursors.pieces(tracked, tells_tokens=False):
            writer.take(piece)


async def _nobody_leaves() -> Message:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets it")
