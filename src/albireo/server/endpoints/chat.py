"""POST /v1/chat/completions."""

from __future__ import annotations

import time

import msgspec

from albireo.api.requests.continuation import Continuation
from albireo.parsers.events import Event, ReasoningDelta
from albireo.parsers.output_parser import OutputParser
from albireo.server import intake
from albireo.server.assembly import delta, message
from albireo.server.endpoints.generating import GeneratingEndpoint, Way, as_it_is
from albireo.server.generation import Generation
from albireo.server.llama_timings import Timings
from albireo.server.logprobs import LogprobWriter
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.chat import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    Delta,
)
from albireo.server.protocol.fields import Usage, usage
from albireo.server.serving import Serving
from albireo.server.streaming import Piece
from albireo.step import TokenLogprobs
from albireo.text.token_count import TokenCount

_DECODER = msgspec.json.Decoder(ChatRequest)


def chat(serving: Serving) -> GeneratingEndpoint[ChatRequest, ChatRequest]:
    """The endpoint."""
    return GeneratingEndpoint(serving, _DECODER, Way("chatcmpl", Answer), as_it_is, intake.chat)


class Answer:
    """Makes the answer, or chunks of it. See generating.Answer."""

    def __init__(self, serving: Serving, request: ChatRequest, generation: Generation, place: int = 0) -> None:
        """Args: place: of its conversation among those of the generation."""
        self._request = request
        self._tracked = generation.requests[place]
        self._account = generation.account
        self._name = generation.account.request_id
        self._created = int(time.time())
        self._model = request.model or serving.names[0]
        self._plan = OutputPlan.of(serving.dialect, request)
        self._parsers: dict[int, OutputParser | None] = {}
        self._callers: set[int] = set()
        self._thoughts = [TokenCount(serving.tokenizer) for _ in self._tracked.continuations]
        self._echo = _last_words(request) if request.echo else ""
        self._writer = LogprobWriter(serving.tokenizer, bool(request.return_tokens_as_token_ids))
        options = request.stream_options
        self._counts_always = bool(options and options.continuous_usage_stats)
        self._counts_last = bool(
            (options and options.include_usage) or serving.settings.enable_force_include_usage or request.return_timings
        )
        self.tells_tokens = bool(request.logprobs or request.return_token_ids or self._counts_always)

    # -- whole ---------------------------------------------------------------------------------------------------------

    def whole(self) -> ChatCompletion:
        """The answer when all is there."""
        request, tracked = self._request, self._tracked
        choices = [self._choice(index, c) for index, c in enumerate(tracked.continuations)]
        answer = ChatCompletion(self._name, self._created, self._model, choices, usage=self._usage(is_last=True))
        if request.return_token_ids:
            answer.prompt_token_ids = tracked.submission.prompt_token_ids
        if request.return_prompt_text:
            answer.prompt_text = tracked.submission.prompt or ""
        if request.timings_per_token:
            answer.timings = Timings.of(self._account, [tracked], tracked.num_output_tokens)
        if request.prompt_logprobs is not None:
            answer.prompt_logprobs = self._writer.prompt(tracked.prompt_logprobs or [])
        return answer

    def _choice(self, index: int, continuation: Continuation) -> ChatChoice:
        parser = self._parser()
        reason: str | None = continuation.finish_reason
        said = ChatMessage(continuation.text())
        if parser is not None:
            said = message(self._noted(index, parser.parse(continuation.text())), **self._tells)
            if said.tool_calls and reason == "stop":
                reason = "tool_calls"
        said.content = self._echo + (said.content or "") or said.content
        choice = ChatChoice(index, said, self._logprobs(continuation.logprobs), reason, continuation.stop_reason)
        if self._request.return_token_ids:
            choice.token_ids = continuation.token_ids
        return choice

    def _noted(self, index: int, events: list[Event]) -> list[Event]:
        """The same; what was thought is counted. Args: index: of the continuation."""
        for event in events:
            if isinstance(event, ReasoningDelta):
                self._thoughts[index].push(event.text)
        return events

    def _parser(self) -> OutputParser | None:
        return self._plan.parser(self._tracked.submission.prompt or "")

    @property
    def _tells(self) -> dict[str, bool]:
        request = self._request
        return {
            "tells_reasoning": request.include_reasoning is not False,
            "is_one_call": request.parallel_tool_calls is False,
        }

    def _logprobs(self, entries: list[TokenLogprobs] | None) -> ChatLogprobs | None:
        if not self._request.logprobs or entries is None:
            return None
        named = self._request.logprob_token_ids
        return self._writer.chat(entries, self._request.top_logprobs or 0, frozenset(named) if named else None)

    def _usage(self, *, is_last: bool = False) -> Usage:
        tracked = self._tracked
        num_prompt = len(tracked.submission.prompt_token_ids)
        counts = usage(num_prompt, tracked.num_output_tokens, tracked.num_cached_tokens)
        if is_last and self._plan.dialect.reasoning_parser is not None:
            num_thought = sum(each.num_tokens() for each in self._thoughts)
            counts.completion_tokens_details = {"reasoning_tokens": min(num_thought, tracked.num_output_tokens)}
        if is_last and self._request.return_timings:
            counts.timings = self._account.timings()
        return counts

    # -- in chunks -----------------------------------------------------------------------------------------------------

    def chunks(self, piece: Piece) -> list[ChatChunk]:
        """What to say of a piece."""
        found = []
        if piece.is_first:
            chunk = self._chunk([ChunkChoice(piece.index, Delta(self._echo, "assistant"))])
            if self._request.return_token_ids:
                chunk.prompt_token_ids = piece.tracked.submission.prompt_token_ids
            if self._request.return_prompt_text:
                chunk.prompt_text = piece.tracked.submission.prompt or ""
            found.append(chunk)
        new = self._delta(piece)
        is_wanted = piece.finish_reason or piece.logprobs or self._counts_always or self._request.return_token_ids
        if not is_wanted and new.is_empty():
            return found
        reason = piece.finish_reason
        if reason == "stop" and piece.index in self._callers:
            reason = "tool_calls"
        choice = ChunkChoice(piece.index, new, self._logprobs(piece.logprobs), reason)
        if piece.finish_reason:
            choice.stop_reason = piece.stop_reason
        if self._request.return_token_ids:
            choice.token_ids = piece.token_ids
        found.append(self._chunk([choice]))
        return found

    def _delta(self, piece: Piece) -> Delta:
        """What is new of its message."""
        if piece.is_first:
            self._parsers[piece.index] = self._parser()
        parser = self._parsers[piece.index]
        if parser is None:
            return Delta(piece.text) if piece.text or not piece.finish_reason else Delta()
        events = [*parser.push(piece.text), *(parser.finish() if piece.finish_reason else ())]
        new = delta(self._noted(piece.index, events), **self._tells)
        if new.tool_calls:
            self._callers.add(piece.index)
        return new

    def last(self) -> list[ChatChunk]:
        """What to say after all pieces."""
        if not self._counts_last:
            return []
        return [ChatChunk(self._name, self._created, self._model, [], usage=self._usage(is_last=True))]

    def _chunk(self, choices: list[ChunkChoice]) -> ChatChunk:
        chunk = ChatChunk(self._name, self._created, self._model, choices)
        if self._counts_always:
            chunk.usage = self._usage()
        elif self._counts_last:
            chunk.usage = None
        if self._request.timings_per_token:
            chunk.timings = Timings.of(self._account, [self._tracked], self._tracked.num_output_tokens)
        return chunk


def _last_words(request: ChatRequest) -> str:
    """Text of the last message, where it is one of the model's."""
    last = request.messages[-1]
    content = last.get("content") if last.get("role") == "assistant" else None
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    return content if isinstance(content, str) else ""
