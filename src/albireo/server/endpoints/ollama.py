"""POST /api/chat and /api/generate: Ollama's protocol. ollama_embed.py and ollama_models.py have the rest of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.server import intake
from albireo.server.blocks import Block, BlockReader
from albireo.server.body import WAITED, ClientGone, parse, received_s
from albireo.server.dialects import ollama as dialect
from albireo.server.dialects.ollama import Known
from albireo.server.dialects.ollama_options import options_of
from albireo.server.endpoints.generating import Way
from albireo.server.endpoints.ollama_asked import begin, in_its_words, known, nanoseconds, now, only_kept
from albireo.server.errors import HttpError
from albireo.server.fitting import TOO_LONG, fitted, without_oldest
from albireo.server.forms import blaming
from albireo.server.generation import Generation
from albireo.server.keep_alive import KEEP_ALIVE
from albireo.server.logprobs import LogprobWriter
from albireo.server.output_plan import OutputPlan
from albireo.server.protocol.chat import ChatRequest, TokenLogprob
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.ollama import (
    Call,
    CalledFunction,
    ChatAnswered,
    ChatAsk,
    GenerateAnswered,
    GenerateAsk,
    Options,
    Said,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Framing, Piece, line
from albireo.step import TokenLogprobs

A = TypeVar("A", ChatAsk, GenerateAsk)
TextRequest = ChatRequest | CompletionRequest

_CHAT, _GENERATE = msgspec.json.Decoder(ChatAsk), msgspec.json.Decoder(GenerateAsk)
_ENCODER = msgspec.json.Encoder()
#: Lines of JSON, which clients call NDJSON.
_FRAMING = Framing(line, lambda error: line(error.ollama_body()), b"", b"application/x-ndjson")


class Texts(Generic[A]):
    """An endpoint, as an ASGI application."""

    def __init__(
        self,
        serving: Serving,
        decoder: msgspec.json.Decoder[A],
        read: Callable[[A, Options, Known], TextRequest],
        said: Callable[[A], Any],
        tell: type[Telling],
    ) -> None:
        """Args: read: what is asked, in another protocol; said: of a request, what the model is to read; tell: how."""
        self._serving, self._tell = serving, tell
        self._decoder: msgspec.json.Decoder[A] = decoder
        self._read: Callable[[A, Options, Known], TextRequest] = read
        self._said: Callable[[A], Any] = said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                ask = parse(body, self._decoder)
                telling = self._tell(ask.model or serving.names[0])
                if not self._said(ask):
                    await only_kept(serving, ask, scope)
                    reason = "unload" if scope.get(KEEP_ALIVE) == 0 else "load"
                    answer = telling.told("", done=True, done_reason=reason)
                    await Response(_ENCODER.encode(answer), media_type="application/json")(scope, receive, send)
                    return
                request, submissions = await self._admit(ask, scope)
            way: Way[Any] = Way("ollama", partial(Answer, telling), _FRAMING, form=dialect.FORM)
            await way.go(serving, request, submissions, arrival_s, scope, receive, send)
        except ClientGone:
            return

    async def _admit(self, ask: A, scope: Scope) -> tuple[TextRequest, list[Submission]]:
        """What is asked, and what the engine gets. Raises: HttpError."""
        serving = self._serving
        begin(serving, ask, scope)
        with in_its_words():
            options = options_of(ask.options, serving.ready.max_model_len)
            request = self._read(ask, options, known(serving))
            with blaming(request, dialect.FORM):
                if isinstance(request, CompletionRequest):
                    may_cut = ask.truncate is not False and not request.suffix
                    return request, await _text_taken_in(serving, request, options.num_ctx, may_cut)
                shorter = [] if ask.truncate is False else without_oldest(request.messages)
                context = ask.context or [] if isinstance(ask, GenerateAsk) else []
                take = partial(_taken_in, serving, request, context, options.num_ctx)
                return request, await fitted(request.messages, shorter, take)


def chat(serving: Serving) -> Texts[ChatAsk]:
    """/api/chat."""
    return Texts(serving, _CHAT, dialect.as_chat, lambda ask: ask.messages, ChatTelling)


def generate(serving: Serving) -> Texts[GenerateAsk]:
    """/api/generate."""
    return Texts(serving, _GENERATE, dialect.as_request, lambda ask: ask.prompt or ask.images, GenerateTelling)


async def _taken_in(
    serving: Serving,
    chat: ChatRequest,
    context: list[int],
    num_ctx: int | None,
    messages: list[dict[str, Any]],
    leaves_room: bool,
) -> list[Submission]:
    """What the engine gets of these messages. Args: context: tokens before them. num_ctx: most of them all.

    The room that an answer asks for is not left: that it may be cut is not said of it.
    """
    (made,) = await intake.chat(serving, replace(chat, messages=messages))
    _check_room(len(context) + len(made.prompt_token_ids), num_ctx or serving.ready.max_model_len)
    return [intake.behind(serving, context, made)] if context else [made]


async def _text_taken_in(
    serving: Serving, asked: CompletionRequest, num_ctx: int | None, may_cut: bool
) -> list[Submission]:
    """What the engine gets of a text; of one that does not fit and may be cut its last tokens: as many as leave the
    room that its answer asks for, but half of all at least."""
    limit = num_ctx or serving.ready.max_model_len
    try:
        (made,) = await intake.completion(serving, asked)
        _check_room(len(made.prompt_token_ids), limit)
        return [made]
    except HttpError as error:
        if error.code != TOO_LONG or not may_cut:
            raise
    most = max(limit - (asked.max_tokens or 0), limit // 2, 1)
    return await intake.completion(serving, replace(asked, truncate_prompt_tokens=most))


def _check_room(num_prompt: int, limit: int) -> None:
    """Raises: HttpError 400 that may be answered by a cut."""
    if num_prompt >= limit:
        raise HttpError(
            400, f"the prompt has {num_prompt} tokens, and num_ctx={limit} leaves room for {limit - 1}; shorten it",
            code=TOO_LONG,
        )  # fmt: skip


class Telling:
    """How a route words what the model says. Args: model: as the request names it."""

    def __init__(self, model: str) -> None:
        self._model = model

    def told(
        self,
        content: str,
        thinking: str = "",
        calls: list[Call] | None = None,
        context: list[int] | UnsetType = UNSET,
        **more: Any,
    ) -> Any:
        """An answer, or what is new of it. Args: more: fields of Answered."""
        raise NotImplementedError


class ChatTelling(Telling):
    """A message."""

    def told(
        self,
        content: str,
        thinking: str = "",
        calls: list[Call] | None = None,
        context: list[int] | UnsetType = UNSET,
        **more: Any,
    ) -> ChatAnswered:
        """See Telling."""
        said = Said(content, thinking=thinking or UNSET, tool_calls=calls or UNSET)
        return ChatAnswered(model=self._model, created_at=now(), message=said, **more)


class GenerateTelling(Telling):
    """A text."""

    def told(
        self,
        content: str,
        thinking: str = "",
        calls: list[Call] | None = None,
        context: list[int] | UnsetType = UNSET,
        **more: Any,
    ) -> GenerateAnswered:
        """See Telling."""
        return GenerateAnswered(
            model=self._model,
            created_at=now(),
            response=content,
            thinking=thinking or UNSET,
            context=context,
            **more,
        )


class Answer:
    """Makes the answer, or lines of it. See generating.Answer."""

    def __init__(self, telling: Telling, serving: Serving, request: TextRequest, generation: Generation) -> None:
        self._telling, self._generation = telling, generation
        (self._tracked,) = generation.requests
        parser, self._gives_context = None, False
        tells_reasoning, self._num_top = True, None if request.logprobs is None else int(request.logprobs)
        if isinstance(request, ChatRequest):
            parser = OutputPlan.of(serving.dialect, request).parser(self._tracked.submission.prompt or "")
            tells_reasoning = request.include_reasoning is not False
            self._num_top = (request.top_logprobs or 0) if request.logprobs else None
            self._gives_context = True
        self._reader = BlockReader(parser, tells_reasoning=tells_reasoning)
        self._writer = LogprobWriter(serving.tokenizer, False)
        self._num_calls = 0
        self.tells_tokens = self._num_top is not None

    def whole(self) -> Any:
        """The answer when all is there."""
        (continuation,) = self._tracked.continuations
        self._reader.push(continuation.text(), continuation.finish_reason)
        reader = self._reader
        calls = self._calls(block for block in reader.blocks if block.kind == "call")
        logprobs = self._logprobs(continuation.logprobs)
        return self._telling.told(
            reader.text_of("text"), reader.text_of("thought"), calls, logprobs=logprobs, **self._end()
        )

    def chunks(self, piece: Piece) -> list[Any]:
        """What to say of a piece."""
        changes = self._reader.push(piece.text, piece.finish_reason)
        more = [change for change in changes if change.what == "more"]
        content, thinking = (
            "".join(change.text for change in more if change.block.kind == kind) for kind in ("text", "thought")
        )
        calls = self._calls(change.block for change in changes if change.what == "end" and change.block.kind == "call")
        logprobs = self._logprobs(piece.logprobs)
        if not (content or thinking or calls or logprobs):
            return []
        return [self._telling.told(content, thinking, calls, logprobs=logprobs)]

    def last(self) -> list[Any]:
        """What to say after all pieces."""
        return [self._telling.told("", **self._end())]

    def _calls(self, blocks: Iterable[Block]) -> list[Call]:
        """Those that were not cut off: what they lack cannot be told apart from what they leave out."""
        found = []
        for block in blocks:
            if block.is_complete:
                found.append(Call(block.call_id, CalledFunction(self._num_calls, block.name, block.arguments)))
                self._num_calls += 1
        return found

    def _logprobs(self, entries: list[TokenLogprobs] | None) -> list[TokenLogprob] | UnsetType:
        if self._num_top is None or not entries:
            return UNSET
        return self._writer.chat(entries, self._num_top).content

    def _end(self) -> dict[str, Any]:
        """What is told at the end, and of a stream in its last line."""
        tracked, timings = self._tracked, self._generation.account.timings()
        (continuation,) = tracked.continuations
        load_s = self._generation.scope.get(WAITED, 0.0) + timings["restart_s"]
        ids = tracked.submission.prompt_token_ids
        return {
            "done": True,
            "done_reason": continuation.finish_reason,
            "total_duration": nanoseconds(timings["wall_s"]),
            "load_duration": nanoseconds(load_s),
            "prompt_eval_count": len(ids),
            "prompt_eval_duration": nanoseconds(timings["prefill_s"]),
            "eval_count": tracked.num_output_tokens,
            "eval_duration": nanoseconds(timings["decode_s"]),
            "context": [*ids, *continuation.token_ids] if self._gives_context else UNSET,
        }
