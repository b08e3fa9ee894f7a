"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's protocol."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.continuation import Continuation
from albireo.errors import EngineError
from albireo.params import SamplingParams
from albireo.server import intake
from albireo.server.body import ClientGone, parse
from albireo.server.dialects import anthropic
from albireo.server.errors import refused
from albireo.server.generation import Generation, new_id
from albireo.server.protocol.anthropic import (
    CountTokensRequest,
    MessageAnswer,
    MessagesRequest,
    MessagesUsage,
    TextBlock,
    TokenCount,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Framing, Piece, named_event, stream

_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountTokensRequest)
_ENCODER = msgspec.json.Encoder()
_FRAMING = Framing(named_event, lambda error: named_event(error.anthropic_body()), b"")


class Messages:
    """The endpoint, as an ASGI application."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received_s = time.monotonic()
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = parse(body, _MESSAGES)
                submissions = await intake.chat(serving, anthropic.as_chat(request))
            name = new_id("msg", None)
            streams = bool(request.stream)
            async with Generation(
                serving, scope, receive, name, submissions, priority=0, received_s=received_s, wants_stream=streams
            ) as generation:
                answer = Answer(request, generation)
                if streams:
                    await stream(
                        serving,
                        generation,
                        send,
                        answer.events,
                        tells_tokens=False,
                        last=answer.last_events,
                        framing=_FRAMING,
                    )
                    return
                await generation.finished()
                headers = {"request-id": name, "x-request-id": name}
                response = Response(_ENCODER.encode(answer.whole()), 200, headers, "application/json")
                await response(scope, receive, send)
        except ClientGone:
            return


class Answer:
    """Makes the answer, or events of it."""

    def __init__(self, request: MessagesRequest, generation: Generation) -> None:
        self._name = generation.account.request_id
        self._model = request.model
        self._tracked = generation.requests[0]

    def whole(self) -> MessageAnswer:
        """The answer when all is there."""
        (continuation,) = self._tracked.continuations
        reason, sequence = _why(continuation)
        content = [TextBlock(continuation.text())]
        return MessageAnswer(self._name, self._model, content, self._usage(), reason, sequence)

    def _usage(self) -> MessagesUsage:
        tracked = self._tracked
        num_cached = tracked.num_cached_tokens
        num_prompt = len(tracked.submission.prompt_token_ids)
        return MessagesUsage(num_prompt - num_cached, tracked.num_output_tokens, num_cached)

    # -- in events -----------------------------------------------------------------------------------------------------

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """What to say of a piece."""
        found: list[dict[str, Any]] = []
        if piece.is_first:
            message = MessageAnswer(self._name, self._model, [], self._usage())
            found = [
                {"type": "message_start", "message": message},
                {"type": "content_block_start", "index": 0, "content_block": TextBlock("")},
                {"type": "ping"},
            ]
        if piece.text:
            delta = {"type": "text_delta", "text": piece.text}
            found.append({"type": "content_block_delta", "index": 0, "delta": delta})
        return found

    def last_events(self) -> list[dict[str, Any]]:
        """What to say after all pieces."""
        reason, sequence = _why(self._tracked.continuations[0])
        return [
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": sequence},
                "usage": self._usage(),
            },
            {"type": "message_stop"},
        ]


def _why(continuation: Continuation) -> tuple[str, str | None]:
    if continuation.finish_reason == "length":
        return "max_tokens", None
    if isinstance(continuation.stop_reason, str):
        return "stop_sequence", continuation.stop_reason
    return "end_turn", None


class TokenCounts:
    """POST /v1/messages/count_tokens."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    async def count(self, http: Request) -> Response:
        """Tokens of a conversation."""
        serving = self._serving
        async with serving.bodies.read(http.scope, http.receive) as body:
            request = parse(body, _COUNT)
        serving.check_model(request.model)
        admission = serving.admission
        messages, is_open = anthropic.conversation(request)
        options: dict[str, Any] = {
            "add_generation_prompt": not is_open,
            "continue_final_message": is_open,
            "chat_template": serving.chat_template,
        }
        try:
            made = await serving.in_thread(lambda: admission.chat(messages, SamplingParams(), options))
        except EngineError as error:
            raise refused(error, "messages") from None
        return Response(_ENCODER.encode(TokenCount(len(made.prompt_token_ids))), media_type="application/json")
