"""Makes the answer of /v1/responses, whole or as events.

Used by endpoints/responses.py. Does not know HTTP, or what is stored.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from albireo.engine_process.tracked import Tracked
from albireo.params import SamplingParams
from albireo.server.errors import HttpError
from albireo.server.protocol.responses import (
    OutputMessage,
    OutputText,
    ResponseAnswer,
    ResponseRequest,
    ResponseUsage,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Piece, named_event


class ResponseWriter:
    """Attributes: answer: what there is of it."""

    def __init__(self, serving: Serving, request: ResponseRequest, name: str, params: SamplingParams) -> None:
        self.request = request
        self._num_events = 0
        self._message_id = f"msg_{uuid.uuid4().hex}"
        options, reasoning = request.text, request.reasoning
        self.answer = ResponseAnswer(
            id=name,
            created_at=int(time.time()),
            model=request.model or serving.names[0],
            status="queued" if request.background else "in_progress",
            background=bool(request.background),
            store=request.store is not False,
            max_output_tokens=request.max_output_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            text={"format": (options.format if options else None) or {"type": "text"}},
            reasoning={"effort": reasoning.effort if reasoning else None, "summary": None},
            metadata=request.metadata or {},
            instructions=request.instructions,
            previous_response_id=request.previous_response_id,
            user=request.user if isinstance(request.user, str) else None,
        )

    def finish(self, tracked: Tracked) -> None:
        """All is there."""
        answer = self.answer
        (continuation,) = tracked.continuations
        is_cut = continuation.finish_reason == "length"
        answer.status = "incomplete" if is_cut else "completed"
        answer.incomplete_details = {"reason": "max_output_tokens"} if is_cut else None
        answer.completed_at = None if is_cut else int(time.time())
        answer.output = [self._item(answer.status, [OutputText(continuation.text())])]
        num_prompt, num_output = len(tracked.submission.prompt_token_ids), tracked.num_output_tokens
        answer.usage = ResponseUsage(
            num_prompt,
            num_output,
            num_prompt + num_output,
            {"cached_tokens": tracked.num_cached_tokens},
            {"reasoning_tokens": 0},
        )

    def fail(self, error: HttpError) -> None:
        """It came to nothing."""
        self.answer.status = "failed"
        self.answer.error = {"code": error.code or "server_error", "message": error.message}

    # -- in events -----------------------------------------------------------------------------------------------------

    def event(self, message: dict[str, Any]) -> bytes:
        """One event, with its number."""
        numbered = {**message, "sequence_number": self._num_events}
        self._num_events += 1
        return named_event(numbered)

    def failed_event(self, error: HttpError) -> bytes:
        """What ends a stream that cannot go on."""
        self.fail(error)
        return self.event({"type": "response.failed", "response": self.answer})

    def events(self, piece: Piece) -> list[dict[str, Any]]:
        """What to say of a piece."""
        found: list[dict[str, Any]] = []
        if piece.is_first:
            item = self._item("in_progress", [])
            found = [
                {"type": "response.created", "response": self.answer},
                {"type": "response.in_progress", "response": self.answer},
                {"type": "response.output_item.added", "output_index": 0, "item": item},
                {"type": "response.content_part.added", **self._place(), "part": OutputText("")},
            ]
        if piece.text:
            delta = {"delta": piece.text, "logprobs": []}
            found.append({"type": "response.output_text.delta", **self._place(), **delta})
        return found

    def last_events(self, tracked: Tracked) -> list[dict[str, Any]]:
        """What to say after all pieces."""
        self.finish(tracked)
        (item,) = self.answer.output
        (part,) = item.content
        return [
            {"type": "response.output_text.done", **self._place(), "text": part.text, "logprobs": []},
            {"type": "response.content_part.done", **self._place(), "part": part},
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": f"response.{self.answer.status}", "response": self.answer},
        ]

    def _item(self, status: str, content: list[OutputText]) -> OutputMessage:
        return OutputMessage(self._message_id, status, content)

    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}
