"""The loop of a streamed answer: what is new of each continuation, framed as events, one write for all of a step.

Used by the endpoints, which say what a chunk looks like. Does not know protocols.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Send

from albireo.engine_process.tracked import Tracked
from albireo.server.body import ClientGone
from albireo.server.bounded_http import ABORT
from albireo.server.errors import HttpError
from albireo.server.event_stream import EVENTS, KEEP_ALIVE, EventStream
from albireo.server.generation import Generation, check
from albireo.server.serving import Serving
from albireo.step import TokenLogprobs

_ENCODER = msgspec.json.Encoder()


@dataclass(slots=True)
class Piece:
    """What is new of one continuation.

    Fields:
        place: of its prompt; index: among all continuations of the answer.
        num_before: its tokens told before. is_first: nothing of it was told before. is_last: it has ended.
    """

    tracked: Tracked
    place: int
    index: int
    text: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs] | None
    num_before: int
    is_first: bool
    finish_reason: str | None
    stop_reason: int | str | None


class Cursors:
    """How far each continuation was told. Args: interval: tokens that are told together, but the first and the last."""

    def __init__(self, generation: Generation, interval: int = 1) -> None:
        self._interval = interval
        self._places = {tracked.key: place for place, tracked in enumerate(generation.requests)}
        self._told = {
            tracked.key: [[0, 0, 0, 0] for _ in tracked.continuations] for tracked in generation.requests
        }  # tokens, characters, whether begun, whether ended

    def pieces(self, tracked: Tracked, tells_tokens: bool) -> list[Piece]:
        """What is new. tells_tokens: tokens without text are news, too."""
        place = self._places[tracked.key]
        found = []
        for k, (continuation, told) in enumerate(zip(tracked.continuations, self._told[tracked.key], strict=True)):
            num_tokens, num_chars, is_begun, is_ended = told
            if is_ended:
                continue
            text = continuation.text()
            ends = continuation.finish_reason is not None
            new_tokens = len(continuation.token_ids) > num_tokens
            if is_begun and not ends and len(continuation.token_ids) - num_tokens < self._interval:
                continue
            if not (len(text) > num_chars or ends or (new_tokens and tells_tokens)):
                continue
            logprobs = continuation.logprobs
            found.append(
                Piece(
                    tracked,
                    place,
                    place * len(tracked.continuations) + k,
                    text[num_chars:],
                    continuation.token_ids[num_tokens:],
                    None if logprobs is None else logprobs[num_tokens:],
                    num_tokens,
                    not is_begun,
                    continuation.finish_reason,
                    continuation.stop_reason,
                )
            )
            told[:] = len(continuation.token_ids), len(text), 1, int(ends)
        return found


def event(message: Any) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % _ENCODER.encode(message)


def line(message: Any) -> bytes:
    """One line of JSON."""
    return _ENCODER.encode(message) + b"\n"


def named_event(message: dict[str, Any]) -> bytes:
    """One server-sent event whose name is the message's type."""
    return b"event: %b\ndata: %b\n\n" % (message["type"].encode(), _ENCODER.encode(message))


@dataclass(frozen=True, slots=True)
class Framing:
    """How a protocol writes its stream.

    Fields: event: one chunk; error: what ends a stream that cannot go on; done: follows the last event.
        media: its type.
    """

    event: Callable[[Any], bytes]
    error: Callable[[HttpError], bytes]
    done: bytes
    media: bytes = EVENTS


OPENAI = Framing(event, lambda error: event(error.body()) + b"data: [DONE]\n\n", b"data: [DONE]\n\n")


async def stream(
    serving: Serving,
    generation: Generation,
    send: Send,
    chunks: Callable[[Piece], list[Any]],
    *,
    tells_tokens: bool,
    last: Callable[[], list[Any]],
    framing: Framing = OPENAI,
    interval: int = 1,
) -> None:
    """Send an answer as it grows.

    Args: chunks: what to say of a piece; last: what to say after all of them; framing: how the protocol writes it;
        interval: see Cursors.
    Raises: HttpError, before anything was sent; afterwards errors are events.
    """
    events = EventStream(generation.scope, send, generation.account, framing.media)
    cursors = Cursors(generation, interval)
    serving.streams.add(events)
    try:
        num_open = len(generation.requests)
        while num_open:
            parts = []
            for tracked in await _news(generation, events, serving.settings.sse_keep_alive_interval):
                check(tracked)
                pieces = cursors.pieces(tracked, tells_tokens)
                parts += [framing.event(chunk) for piece in pieces for chunk in chunks(piece)]
                num_open -= tracked.is_over
            if num_open == 0:
                parts += [framing.event(message) for message in last()]
                parts.append(framing.done)
                await events.end(b"".join(parts))
            elif parts:
                await events.put(b"".join(parts))
    except HttpError as error:
        if not events.is_open:
            raise
        await events.end(framing.error(error))
    except ClientGone:
        return
    finally:
        serving.streams.discard(events)


async def _news(generation: Generation, events: EventStream, interval_s: float) -> list[Tracked]:
    """Requests with something new. While there are none a comment is sent at each interval, for proxies that would take
    the connection for dead; 0: none is. Lines of JSON have no comments."""
    if interval_s <= 0 or events.media != EVENTS:
        return await generation.news()
    while True:
        try:
            async with asyncio.timeout(interval_s):
                return await generation.news()
        except TimeoutError:
            await events.put(KEEP_ALIVE)


def break_stuck(serving: Serving, now: float) -> None:
    """End the connections of clients that have not read for too long."""
    limit = serving.settings.reader_timeout
    for events in list(serving.streams):
        since_s = events.account.reading_since_s
        if since_s is not None and now - since_s > limit:
            abort = events.scope.get(ABORT)
            if abort is not None:
                abort()
