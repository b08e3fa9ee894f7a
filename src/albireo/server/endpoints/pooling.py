"""The endpoints whose prompts are pooled: a body is read, all it asks for is run at once, and answered whole.

Made by embeddings.py, scoring.py, classify.py, pooled.py and tei.py beside it, which know what is asked and answered.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.errors import HttpError
from albireo.server.generation import Generation, answer_id
from albireo.server.pooling_intake import placed
from albireo.server.protocol.pooling import PoolingFields, PoolingUsage
from albireo.server.serving import Serving

R = TypeVar("R", bound=PoolingFields)

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Head:
    """What all answers begin with. Fields: created: seconds since 1970. generation: whose account may be told."""

    id: str
    model: str
    created: int
    usage: PoolingUsage
    generation: Generation


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks of the engine.

    Fields:
        places: what each submission is called where it fails.
        answer: makes the answer of its head and of the requests when they are done, in order.
    """

    submissions: list[Submission]
    places: list[str]
    answer: Callable[[Head, list[Tracked]], Awaitable[Any]]


class PoolingEndpoint(Generic[R]):
    """An endpoint, as an ASGI application."""

    def __init__(
        self, serving: Serving, kind: type[R], prefix: str, ask: Callable[[Serving, R], Awaitable[Asked]]
    ) -> None:
        """Args: kind: of a body; prefix: of ids; ask: what it asks for. Raises: HttpError."""
        self._serving, self._prefix, self._ask = serving, prefix, ask
        self._decoder: Any = msgspec.json.Decoder(kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request: R = parse(body, self._decoder)
                asked = await self._ask(serving, request)
            await answered(serving, self._prefix, request, asked, arrival_s, scope, receive, send)
        except ClientGone:
            return


async def answered(
    serving: Serving,
    prefix: str,
    request: PoolingFields,
    asked: Asked,
    arrival_s: float,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Run what was admitted, and send the answer. Args: prefix: of ids. Raises: HttpError; ClientGone."""
    name = answer_id(serving, scope, prefix, request.request_id)
    async with Generation(
        serving,
        scope,
        receive,
        name,
        asked.submissions,
        priority=request.priority or 0,
        received_s=arrival_s,
        wants_stream=False,
    ) as generation:
        await _finished(generation, asked)
        num_tokens = sum(len(made.prompt_token_ids) for made in asked.submissions)
        usage = PoolingUsage(num_tokens, num_tokens)
        head = Head(name, request.model or serving.names[0], int(time.time()), usage, generation)
        whole = _ENCODER.encode(await asked.answer(head, generation.requests))
        await generation.answer(Response(whole, 200, {"x-request-id": name}, "application/json"), send)


async def _finished(generation: Generation, asked: Asked) -> None:
    """Raises: HttpError naming the one that the engine gave up."""
    try:
        await generation.finished()
    except HttpError as error:
        failed = [place for place, each in zip(asked.places, generation.requests, strict=True) if each.has_failed]
        # None has when it took too long, and all have when the engine has: that is none's doing.
        raise placed(error, failed[0]) if 0 < len(failed) < len(asked.places) else error from None


def values_of(tracked: Tracked) -> tuple[float, ...]:
    """What the engine made of a prompt."""
    assert tracked.embedding is not None, "it ended well"
    return struct.unpack(f"<{len(tracked.embedding) // 4}f", tracked.embedding)
