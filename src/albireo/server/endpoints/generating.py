"""What all requests for a text have in common: a body becomes submissions, they run, the answer is told or streamed.

Used by completions.py, chat.py, messages.py and ollama.py beside it, which say how each of these looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.forms import blaming
from albireo.server.generation import Generation, answer_id
from albireo.server.protocol.fields import GenerationFields
from albireo.server.serving import Serving
from albireo.server.streaming import OPENAI, Framing, Piece, stream

R = TypeVar("R", bound=GenerationFields)
B = TypeVar("B", bound=msgspec.Struct)
_ENCODER = msgspec.json.Encoder()


class Answer(Protocol):
    """Makes the answer of one request, or chunks of it. Attributes: tells_tokens: tokens without text are told, too."""

    tells_tokens: bool

    def whole(self) -> Any:
        """The answer when all is there."""

    def chunks(self, piece: Piece) -> list[Any]:
        """What to say of a piece."""

    def last(self) -> list[Any]:
        """What to say after all pieces."""


@dataclass(frozen=True, slots=True)
class Way(Generic[R]):
    """How what was admitted is run and told.

    Fields:
        prefix: of the answers' ids. answer: what is made of a request.
        framing: how a stream is written. id_headers: of a whole answer, those that hold its id.
        form: what response_format is called in the protocol. is_enough: see Generation.
    """

    prefix: str
    answer: Callable[[Serving, R, Generation], Answer]
    framing: Framing = OPENAI
    id_headers: tuple[str, ...] = ("x-request-id",)
    form: str = "response_format"
    is_enough: Callable[[Tracked], bool] | None = None

    async def go(
        self,
        serving: Serving,
        request: R,
        submissions: list[Submission],
        arrival_s: float,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Run it, and send the answer. Raises: HttpError, before anything was sent; ClientGone."""
        name = answer_id(serving, scope, self.prefix, request.request_id)
        async with Generation(
            serving,
            scope,
            receive,
            name,
            submissions,
            priority=request.priority or 0,
            received_s=arrival_s,
            wants_stream=bool(request.stream),
            is_enough=self.is_enough,
        ) as generation:
            answer = self.answer(serving, request, generation)
            with blaming(request, self.form):
                if request.stream:
                    await stream(
                        serving,
                        generation,
                        send,
                        answer.chunks,
                        tells_tokens=answer.tells_tokens,
                        last=answer.last,
                        framing=self.framing,
                        interval=request.stream_interval or 1,
                    )
                    return
                await generation.finished()
            whole = _ENCODER.encode(await generation.made(answer.whole))
            headers = dict.fromkeys(self.id_headers, name)
            await generation.answer(Response(whole, 200, headers, "application/json"), send)


@dataclass(frozen=True, slots=True)
class GeneratingEndpoint(Generic[B, R]):
    """An endpoint, as an ASGI application.

    Fields: read: a body to the request that it means. admit: a request to what the engine gets.
    """

    serving: Serving
    decoder: msgspec.json.Decoder[B]
    way: Way[R]
    read: Callable[[Serving, B], R]
    admit: Callable[[Serving, R], Awaitable[list[Submission]]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self.serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = self.read(serving, parse(body, self.decoder))
                with blaming(request, self.way.form):
                    submissions = await self.admit(serving, request)
            await self.way.go(serving, request, submissions, arrival_s, scope, receive, send)
        except ClientGone:
            return


def as_it_is(serving: Serving, request: R) -> R:
    """Of a body that is a request already."""
    return request
