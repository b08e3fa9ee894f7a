"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's protocol."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from albireo.server import intake
from albireo.server.blocks import Block, BlockReader, Change
from albireo.server.body import parse
from albireo.server.dialects import anthropic
from albireo.server.endpoints.generating import GeneratingEndpoint, Way
from albireo.server.generation import Generation
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.anthropic import (
    ContentBlock,
    CountTokensRequest,
    MessageAnswer,
    MessagesRequest,
    MessagesUsage,
    TextBlock,
    ThinkingBlock,
    TokenCount,
    ToolUseBlock,
)
from albireo.server.protocol.chat import ChatRequest
from albireo.server.serving import Serving
from albireo.server.streaming import Framing, Piece, named_event

_MESSAGES = msgspec.json.Decoder(MessagesRequest)
_COUNT = msgspec.json.Decoder(CountTokensRequest)
_ENCODER = msgspec.json.Encoder()
_FRAMING = Framing(named_event, lambda error: named_event(error.anthropic_body()), b"")


def messages(serving: Serving) -> GeneratingEndpoint[MessagesRequest, ChatRequest]:
    """The endpoint."""
    way = Way("msg", Answer, _FRAMING, ("request-id", "x-request-id"), anthropic.FORM)
    return GeneratingEndpoint(serving, _MESSAGES, way, _chat, intake.chat)


def _chat(serving: Serving, request: MessagesRequest) -> ChatRequest:
    return anthropic.as_chat(request, serving.dialect, serving.settings.chat_template_kwarg)


class Answer:
    """Makes the answer, or events of it. See generating.Answer."""

    tells_tokens = False

    def __init__(self, serving: Serving, chat: ChatRequest, generation: Generation) -> None:
        self._name = generation.account.request_id
        self._model = chat.model or serving.names[0]
        self._tracked = generation.requests[0]
        parser = OutputPlan.of(serving.dialect, chat).parser(self._tracked.submission.prompt or "")
        self._reader = BlockReader(
            parser,
            tells_reasoning=chat.include_reasoning is not False,
            is_one_call=chat.parallel_tool_calls is False,
        )

    def whole(self) -> MessageAnswer:
        """The answer when all is there."""
        (continuation,) = self._tracked.continuations
        self._reader.push(continuation.text(), continuation.finish_reason)
        reason, sequence = self._why()
        content = [_block(block, block.text, block.arguments) for block in self._reader.blocks]
        return MessageAnswer(self._name, self._model, content, self._usage(), reason, sequence)

    def _why(self) -> tuple[str, str | None]:
        (continuation,) = self._tracked.continuations
        if continuation.finish_reason == "length":
            return "max_tokens", None
        if isinstance(continuation.stop_reason, str):
            return "stop_sequence", continuation.stop_reason
        return "tool_use" if any(block.kind == "call" for block in self._reader.blocks) else "end_turn", None

    def _usage(self) -> MessagesUsage:
        tracked = self._tracked
        num_cached = tracked.num_cached_tokens
        num_prompt = len(tracked.submission.prompt_token_ids)
        return MessagesUsage(num_prompt - num_cached, tracked.num_output_tokens, num_cached)

    # -- in events -----------------------------------------------------------------------------------------------------

    def chunks(self, piece: Piece) -> list[dict[str, Any]]:
        """What to say of a piece."""
        found: list[dict[str, Any]] = []
        if piece.is_first:
            message = MessageAnswer(self._name, self._model, [], self._usage())
            found = [{"type": "message_start", "message": message}, {"type": "ping"}]
        for change in self._reader.push(piece.text, piece.finish_reason):
            place = {"index": change.block.index}
            if change.what == "begin":
                found.append({"type": "content_block_start", **place, "content_block": _block(change.block, "", {})})
            elif change.what == "more":
                found.append({"type": "content_block_delta", **place, "delta": _delta(change)})
            else:
                found.append({"type": "content_block_stop", **place})
        return found

    def last(self) -> list[dict[str, Any]]:
        """What to say after all pieces."""
        reason, sequence = self._why()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        return [{"type": "message_delta", "delta": delta, "usage": self._usage()}, {"type": "message_stop"}]


def _block(block: Block, text: str, arguments: dict[str, Any]) -> ContentBlock:
    if block.kind == "thought":
        return ThinkingBlock(text)
    return ToolUseBlock(block.call_id, block.name, arguments) if block.kind == "call" else TextBlock(text)


def _delta(change: Change) -> dict[str, str]:
    if change.block.kind == "thought":
        return {"type": "thinking_delta", "thinking": change.text}
    if change.block.kind == "call":
        return {"type": "input_json_delta", "partial_json": change.text}
    return {"type": "text_delta", "text": change.text}


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
        chat = anthropic.as_chat(request, serving.dialect, serving.settings.chat_template_kwarg)
        count = TokenCount(await intake.num_tokens(serving, chat))
        return Response(_ENCODER.encode(count), media_type="application/json")
