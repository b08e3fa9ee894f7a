"""Makes the answer of /v1/responses, whole or as events.

Used by endpoints/responses.py. Does not know HTTP, or what is stored.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from albireo.api.admission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.blocks import Block, BlockReader, Change
from albireo.server.errors import HttpError
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.chat import ChatRequest
from albireo.server.protocol.responses import (
    FunctionCallItem,
    OutputItem,
    OutputMessage,
    OutputText,
    ReasoningItem,
    ReasoningText,
    ResponseAnswer,
    ResponseRequest,
    ResponseUsage,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Piece, named_event

#: Kind of a block -> what ids of its items begin with.
_PREFIXES = {"thought": "rs", "text": "msg", "call": "fc"}


class ResponseWriter:
    """Attributes: answer: what there is of it."""

    def __init__(
        self, serving: Serving, request: ResponseRequest, chat: ChatRequest, name: str, submission: Submission
    ) -> None:
        """Args: chat: the same request as a chat."""
        self.request = request
        self._num_events = 0
        self._tokenizer = serving.tokenizer
        parser = OutputPlan.of(serving.dialect, chat).parser(submission.prompt or "")
        self._reader = BlockReader(parser, is_one_call=request.parallel_tool_calls is False)
        self._ids: dict[int, str] = {}
        params = submission.params
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
            parallel_tool_calls=request.parallel_tool_calls is not False,
            tool_choice=request.tool_choice or "auto",
            tools=[{"parameters": None, "strict": None, **tool} for tool in request.tools or ()],
            user=request.user if isinstance(request.user, str) else None,
        )

    def finish(self, tracked: Tracked) -> None:
        """All is there."""
        answer, reader = self.answer, self._reader
        (continuation,) = tracked.continuations
        if not reader.has_ended:
            reader.push(continuation.text(), continuation.finish_reason)
        is_cut = continuation.finish_reason == "length"
        answer.status = "incomplete" if is_cut else "completed"
        answer.incomplete_details = {"reason": "max_output_tokens"} if is_cut else None
        answer.completed_at = None if is_cut else int(time.time())
        answer.output = [self._whole(block) for block in reader.blocks]
        num_prompt, num_output = len(tracked.submission.prompt_token_ids), tracked.num_output_tokens
        thought = reader.text_of("thought")
        num_thought = len(self._tokenizer.encode(thought, add_special_tokens=False)) if thought else 0
        answer.usage = ResponseUsage(
            num_prompt,
            num_output,
            num_prompt + num_output,
            {"cached_tokens": tracked.num_cached_tokens, "cache_write_tokens": 0},
            {"reasoning_tokens": min(num_thought, num_output)},
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
            found = [{"type": f"response.{what}", "response": self.answer} for what in ("created", "in_progress")]
        for change in self._reader.push(piece.text, piece.finish_reason):
            found += _TELL[change.what](self, change)
        return found

    def last_events(self, tracked: Tracked) -> list[dict[str, Any]]:
        """What to say after all pieces."""
        self.finish(tracked)
        return [{"type": f"response.{self.answer.status}", "response": self.answer}]

    def _begin(self, change: Change) -> list[dict[str, Any]]:
        block = change.block
        item = self._item(block, "in_progress", "", has_parts=False)
        found = [{"type": "response.output_item.added", "output_index": block.index, "item": item}]
        if block.kind != "call":
            found.append({"type": "response.content_part.added", **self._place(block), "part": _part(block, "")})
        return found

    def _more(self, change: Change) -> list[dict[str, Any]]:
        block = change.block
        more = {"type": f"response.{_names(block)[0]}.delta", **self._place(block), "delta": change.text}
        return [more | {"logprobs": []} if block.kind == "text" else more]

    def _end(self, change: Change) -> list[dict[str, Any]]:
        block = change.block
        kind, field = _names(block)
        done = {"type": f"response.{kind}.done", **self._place(block), field: block.text}
        found: list[dict[str, Any]] = [done]
        if block.kind == "call":
            done["name"] = block.name
        else:
            part = _part(block, block.text)
            found.append({"type": "response.content_part.done", **self._place(block), "part": part})
        if block.kind == "text":
            done["logprobs"] = []
        found.append({"type": "response.output_item.done", "output_index": block.index, "item": self._whole(block)})
        return found

    # -- items ---------------------------------------------------------------------------------------------------------

    def _whole(self, block: Block) -> OutputItem:
        return self._item(block, "completed" if block.is_complete else "incomplete", block.text)

    def _item(self, block: Block, status: str, text: str, *, has_parts: bool = True) -> OutputItem:
        name = self._id(block)
        if block.kind == "call":
            return FunctionCallItem(name, status, block.call_id, block.name, text)
        if block.kind == "thought":
            return ReasoningItem(name, status, [ReasoningText(text)] if has_parts else [])
        return OutputMessage(name, status, [OutputText(text)] if has_parts else [])

    def _id(self, block: Block) -> str:
        if block.index not in self._ids:
            self._ids[block.index] = f"{_PREFIXES[block.kind]}_{uuid.uuid4().hex}"
        return self._ids[block.index]

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": self._id(block), "output_index": block.index}
        return place if block.kind == "call" else {**place, "content_index": 0}


_TELL = {"begin": ResponseWriter._begin, "more": ResponseWriter._more, "end": ResponseWriter._end}


def _names(block: Block) -> tuple[str, str]:
    """What events call it, and its text in the last of them."""
    names = {
        "thought": ("reasoning_text", "text"),
        "text": ("output_text", "text"),
        "call": ("function_call_arguments", "arguments"),
    }
    return names[block.kind]


def _part(block: Block, text: str) -> OutputText | ReasoningText:
    return OutputText(text) if block.kind == "text" else ReasoningText(text)
