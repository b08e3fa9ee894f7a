"""Makes the answer of /v1/responses, whole or as events. Events have numbers, and can be asked for again by them.

Used by endpoints/responses.py. Does not know HTTP, or what is stored.
"""

from __future__ import annotations

import time
import uuid
from array import array
from collections.abc import Sequence
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.server.blocks import Block, BlockReader, Change
from albireo.server.dialects.custom_tools import input_of
from albireo.server.dialects.response_tools import custom_names, names_of
from albireo.server.dialects.responses import conversation_id, includes_logprobs
from albireo.server.errors import HttpError
from albireo.server.logprobs import LogprobWriter
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.chat import ChatRequest, TokenLogprob
from albireo.server.protocol.conversations import ConversationName
from albireo.server.protocol.responses import (
    CustomCallItem,
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
from albireo.server.response_log import Entry, ResponseLog
from albireo.server.serving import Serving
from albireo.server.streaming import Piece, named_event
from albireo.server.text_tokens import TextTokens
from albireo.step import TokenLogprobs
from albireo.text.places import TextPlaces
from albireo.text.token_count import TokenCount

#: What is told of a function though nothing was said of it.
_UNSAID: dict[str, Any] = {"parameters": None, "strict": None}
#: Kind of a block -> what ids of its items begin with.
_PREFIXES = {"thought": "rs", "text": "msg", "call": "fc"}


class ResponseWriter:
    """Attributes: answer: what there is of it. log: what its events tell."""

    def __init__(
        self, serving: Serving, request: ResponseRequest, chat: ChatRequest, name: str, submission: Submission
    ) -> None:
        """Args: chat: the same request as a chat."""
        self.request = request
        self.log = ResponseLog()
        self._thoughts = TokenCount(serving.tokenizer)
        self._tells_thoughts = request.include_reasoning is not False
        parser = OutputPlan.of(serving.dialect, chat).parser(submission.prompt or "")
        self._names, self._customs = names_of(request), custom_names(request)
        self._reader = BlockReader(
            parser,
            tells_reasoning=self._tells_thoughts,
            is_one_call=request.parallel_tool_calls is False,
            hears=self._hear,
        )
        self._ids: dict[int, str] = {}
        self._num_parts: dict[int, int] = {}  # of the last block that has any, those noted
        params = submission.params
        self._logprobs = _BlockLogprobs(serving, request, submission) if includes_logprobs(request) else None
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
            tools=[{**_UNSAID, **tool} if tool["type"] == "function" else tool for tool in request.tools or ()],
            truncation=request.truncation or "disabled",
            top_logprobs=request.top_logprobs or 0,
            user=request.user if isinstance(request.user, str) else None,
            conversation=UNSET if request.conversation is None else ConversationName(conversation_id(request) or ""),
        )

    def _hear(self, thought: str) -> None:
        self._thoughts.push(thought)
        if self._logprobs is not None and not self._tells_thoughts:
            self._logprobs.tokens.pass_over(thought)

    def begin(self) -> None:
        """It is accepted; one in the background then waits for its turn."""
        self.log.add(Entry("created"))
        self.log.add(Entry("queued" if self.answer.status == "queued" else "in_progress"))

    def go_on(self) -> None:
        """One in the background has its turn."""
        self.answer.status = "in_progress"
        self.log.add(Entry("in_progress"))

    def take(self, piece: Piece) -> range:
        """What is new of the text. Returns: numbers of the events that tell it."""
        start = len(self.log)
        if start == 0:
            self.begin()
        self._read(piece.text, piece.finish_reason, piece.token_ids, piece.logprobs)
        return range(start, len(self.log))

    def finish(self, tracked: Tracked) -> range:
        """All is there. Returns: numbers of the events that tell the rest."""
        answer, reader, start = self.answer, self._reader, len(self.log)
        if start == 0:
            self.begin()
        (continuation,) = tracked.continuations
        if not reader.has_ended:
            text, ended = continuation.text(), continuation.finish_reason
            self._read(text, ended, continuation.token_ids, continuation.logprobs)
        is_cut = continuation.finish_reason == "length"
        answer.status = "incomplete" if is_cut else "completed"
        answer.incomplete_details = {"reason": "max_output_tokens"} if is_cut else None
        answer.completed_at = None if is_cut else int(time.time())
        answer.output = [self._whole(block) for block in reader.blocks]
        num_prompt, num_output = len(tracked.submission.prompt_token_ids), tracked.num_output_tokens
        answer.usage = ResponseUsage(
            num_prompt,
            num_output,
            num_prompt + num_output,
            {"cached_tokens": tracked.num_cached_tokens, "cache_write_tokens": 0},
            {"reasoning_tokens": min(self._thoughts.num_tokens(), num_output)},
        )
        self.log.add(Entry("over"))
        return range(start, len(self.log))

    def fail(self, error: HttpError) -> bytes:
        """It came to nothing. Returns: the event that says so."""
        self.answer.status = "failed"
        self.answer.error = {"code": error.code or "server_error", "message": error.message}
        self.log.add(Entry("over"))
        return self.event(len(self.log) - 1)

    def cancel(self) -> None:
        """Nobody wants it any more."""
        self.answer.status = "cancelled"
        self.log.add(Entry("over"))

    # -- in events -----------------------------------------------------------------------------------------------------

    def event(self, number: int) -> bytes:
        """One event; the same whenever it is asked for."""
        return named_event({**self._message(self.log[number]), "sequence_number": number})

    def _message(self, entry: Entry) -> dict[str, Any]:
        if entry.what == "over":
            return {"type": f"response.{self.answer.status}", "response": self.answer}
        if entry.what in _TELL:
            block = self._reader.blocks[entry.block]
            return _TELL[entry.what](self, block, entry.part)
        is_early = entry.what == "queued" or (entry.what == "created" and self.answer.background)
        status = "queued" if is_early else "in_progress"
        empty: dict[str, Any] = {
            "output": [],
            "usage": None,
            "error": None,
            "incomplete_details": None,
            "completed_at": None,
        }
        return {"type": f"response.{entry.what}", "response": replace(self.answer, status=status, **empty)}

    def _read(
        self,
        text: str,
        finish_reason: str | None,
        token_ids: Sequence[int],
        entries: Sequence[TokenLogprobs] | None,
    ) -> None:
        """What is new of the output."""
        if self._logprobs is None or entries is None:
            self._note(self._reader.push(text, finish_reason))
            return
        self._logprobs.tokens.take(token_ids, entries)
        for piece in self._logprobs.tokens.pieces(text):
            self._note(self._reader.push(piece, None))
        if finish_reason is not None:
            self._note(self._reader.push("", finish_reason))

    def _note(self, changes: list[Change]) -> None:
        for change in changes:
            block = change.block
            if self._logprobs is not None:
                self._logprobs.note(change)
            is_custom = self._is_custom(block)
            if change.what == "more" and is_custom:
                continue  # its text is within arguments, and told when these are whole
            if change.what == "more":
                self.log.add(Entry("more", block.index, self._num_parts.get(block.index, 0)))
                self._num_parts = {block.index: self._num_parts.get(block.index, 0) + 1}
                continue
            num = _NUM_EVENTS[change.what] - (block.kind == "call" and not (is_custom and change.what == "end"))
            for part in range(num):
                self.log.add(Entry(change.what, block.index, part))

    def _begin(self, block: Block, part: int) -> dict[str, Any]:
        if part:
            return {
                "type": "response.content_part.added",
                **self._place(block),
                "part": self._part(block, is_empty=True),
            }
        item = self._item(block, "in_progress", "", has_parts=False)
        return {"type": "response.output_item.added", "output_index": block.index, "item": item}

    def _more(self, block: Block, part: int) -> dict[str, Any]:
        more = {"type": f"response.{_names(block)[0]}.delta", **self._place(block), "delta": block.parts[part]}
        return more | {"logprobs": self._told(block, part)} if block.kind == "text" else more

    def _end(self, block: Block, part: int) -> dict[str, Any]:
        if self._is_custom(block) and part < 2:
            text, (kind, field) = input_of(block.text), (("delta", "delta"), ("done", "input"))[part]
            return {"type": f"response.custom_tool_call_input.{kind}", **self._place(block), field: text}
        kind, field = _names(block)
        if part == 0:
            done: dict[str, Any] = {"type": f"response.{kind}.done", **self._place(block), field: block.text}
            if block.kind == "call":
                done["name"] = self._called(block)[1]
            elif block.kind == "text":
                done["logprobs"] = self._told(block)
            return done
        if part == 1 and block.kind != "call":
            return {"type": "response.content_part.done", **self._place(block), "part": self._part(block)}
        return {"type": "response.output_item.done", "output_index": block.index, "item": self._whole(block)}

    # -- items ---------------------------------------------------------------------------------------------------------

    def _whole(self, block: Block) -> OutputItem:
        return self._item(block, "completed" if block.is_complete else "incomplete", block.text)

    def _item(self, block: Block, status: str, text: str, *, has_parts: bool = True) -> OutputItem:
        name = self._id(block)
        if self._is_custom(block):
            return CustomCallItem(name, status, block.call_id, block.name, input_of(text) if text else "")
        if block.kind == "call":
            namespace, function = self._called(block)
            return FunctionCallItem(name, status, block.call_id, function, text, namespace)
        if block.kind == "thought":
            return ReasoningItem(name, status, [ReasoningText(text)] if has_parts else [])
        return OutputMessage(name, status, [OutputText(text, logprobs=self._of(block))] if has_parts else [])

    def _part(self, block: Block, *, is_empty: bool = False) -> OutputText | ReasoningText:
        text = "" if is_empty else block.text
        if block.kind != "text":
            return ReasoningText(text)
        return OutputText(text, logprobs=[] if is_empty else self._of(block))

    def _of(self, block: Block) -> list[TokenLogprob]:
        return [] if self._logprobs is None else self._logprobs.of(block)

    def _told(self, block: Block, part: int | None = None) -> list[dict[str, Any]]:
        """Of a part of a block, or of all of it, as events tell them: without bytes."""
        found = [] if self._logprobs is None else self._logprobs.of(block, part)
        return [
            {
                "token": each.token,
                "logprob": each.logprob,
                "top_logprobs": [{"token": top.token, "logprob": top.logprob} for top in each.top_logprobs],
            }
            for each in found
        ]

    def _is_custom(self, block: Block) -> bool:
        """Whether it is a call of a tool whose input is a text."""
        return block.kind == "call" and block.name in self._customs

    def _called(self, block: Block) -> tuple[str | UnsetType, str]:
        """Namespace and name of the function that a call names as the model was shown it."""
        return self._names.get(block.name, (UNSET, block.name))

    def _id(self, block: Block) -> str:
        if block.index not in self._ids:
            prefix = "ctc" if self._is_custom(block) else _PREFIXES[block.kind]
            self._ids[block.index] = f"{prefix}_{uuid.uuid4().hex}"
        return self._ids[block.index]

    def _place(self, block: Block) -> dict[str, Any]:
        place = {"item_id": self._id(block), "output_index": block.index}
        return place if block.kind == "call" else {**place, "content_index": 0}


_TELL = {"begin": ResponseWriter._begin, "more": ResponseWriter._more, "end": ResponseWriter._end}
#: Events by which the begin and the end of a block are told; one less of a call, which has no parts.
_NUM_EVENTS = {"begin": 2, "end": 3}


def _names(block: Block) -> tuple[str, str]:
    """What events call it, and its text in the last of them."""
    names = {
        "thought": ("reasoning_text", "text"),
        "text": ("output_text", "text"),
        "call": ("function_call_arguments", "arguments"),
    }
    return names[block.kind]


class _BlockLogprobs:
    """Log-probabilities of the tokens that an answer's texts are made of. Attributes: tokens: finds them."""

    def __init__(self, serving: Serving, request: ResponseRequest, submission: Submission) -> None:
        shown = not submission.params.skip_special_tokens
        places = TextPlaces(serving.tokenizer, lambda text, place: shown, prompt_token_ids=submission.prompt_token_ids)
        self.tokens = TextTokens(places)
        self._writer = LogprobWriter(serving.tokenizer, as_ids=False)
        self._num = request.top_logprobs or 0
        self._told: dict[int, list[TokenLogprob]] = {}  # by the block's index
        self._ends: dict[int, array[int]] = {}  # of each of its parts, how many there are up to its end

    def note(self, change: Change) -> None:
        """What happened to a block."""
        entries = self.tokens.of(change)
        if change.what == "more" and change.block.kind == "text":
            told = self._told.setdefault(change.block.index, [])
            told += self._writer.chat(entries, self._num).content
            self._ends.setdefault(change.block.index, array("I")).append(len(told))

    def of(self, block: Block, part: int | None = None) -> list[TokenLogprob]:
        """Those of a block, or of one part of its text."""
        told = self._told.get(block.index, [])
        if part is None:
            return told
        ends = self._ends[block.index]
        return told[ends[part - 1] if part else 0 : ends[part]]
