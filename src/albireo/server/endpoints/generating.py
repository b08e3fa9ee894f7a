"""What completions and chats have in common: a body becomes submissions, they run, and the answer is told or streamed.

Used by completions.py and chat.py beside it, which say how each of these looks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.forms import blaming
from albireo.server.generation import Generation, answer_id
from albireo.server.protocol.fields import GenerationFields
from albireo.server.serving import Serving
from albireo.server.streaming import Piece, stream

R = TypeVar("R", bound=GenerationFields)
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
class GeneratingEndpoint(Generic[R]):
    """An endpoint, as an ASGI application.

    Fields: prefix: of the answers' ids. admit: a request to what the engine gets. answer: what is made of it.
    """

    serving: Serving
    decoder: msgspec.json.Decoder[R]
    prefix: str
    admit: Callable[[Serving, R], Awaitable[list[Submission]]]
    answer: Callable[[Serving, R, Generation], Answer]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self.serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = parse(body, self.decoder)
                with blaming(request):
                    submissions = await self.admit(serving, request)
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
            ) as generation:
                answer = self.answer(serving, request, generation)
                with blaming(request):
                    if request.stream:
                        await stream(
                            serving,
                            generation,
                            send,
                            answer.chunks,
                            tells_tokens=answer.tells_tokens,
                            last=answer.last,
                            interval=request.stream_interval or 1,
                        )
                        return
                    await generation.finished()
                whole = _ENCODER.encode(await generation.made(answer.whole))
                await generation.answer(Response(whole, 200, {"x-request-id": name}, "application/json"), send)
        except ClientGone:
            return
