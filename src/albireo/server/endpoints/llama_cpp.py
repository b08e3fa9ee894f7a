"""POST /completion and /infill: llama.cpp's protocol. llama_cpp_told.py has the rest of it."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.engine_process.tracked import Tracked
from albireo.errors import EngineError
from albireo.server import intake
from albireo.server.body import ClientGone, parse, received_s
from albireo.server.dialects import llama_cpp as dialect
from albireo.server.endpoints.generating import Way
from albireo.server.errors import HttpError, refused
from albireo.server.generation import Generation
from albireo.server.intake import MAX_IDS
from albireo.server.llama_timings import Timings
from albireo.server.logprobs import LogprobWriter
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.llama_cpp import (
    Completed,
    CompletionAsk,
    InfillAsk,
    MixedPrompt,
    PlaceProbs,
    SampledFields,
    TokenProb,
)
from albireo.server.serving import INLINE_CHARS, Serving
from albireo.server.streaming import Framing, Piece, event
from albireo.step import TokenLogprobs

A = TypeVar("A", bound=SampledFields)

_COMPLETION, _INFILL = msgspec.json.Decoder(CompletionAsk), msgspec.json.Decoder(InfillAsk)
#: Of an answer whose length was not said: so many tokens are left to it when other files are in front of its prompt.
_LEAST_ROOM = 128
_INDENT = re.compile(r"[ \t]*")


class Texts(Generic[A]):
    """An endpoint, as an ASGI application."""

    def __init__(
        self,
        serving: Serving,
        decoder: msgspec.json.Decoder[A],
        read: Callable[[Serving, A], Awaitable[CompletionRequest]],
    ) -> None:
        self._serving = serving
        self._decoder: msgspec.json.Decoder[A] = decoder
        self._read: Callable[[Serving, A], Awaitable[CompletionRequest]] = read

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        arrival_s = received_s(scope)
        serving = self._serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                ask = parse(body, self._decoder)
                with _in_its_words():
                    request, submissions = await self._admit(ask)
            bounds = LineBounds(ask)
            framing = Framing(partial(_framed, ask), lambda error: event(error.body()), b"")
            made = partial(Answer, ask, bounds)
            way: Way[CompletionRequest] = Way("llama", made, framing, is_enough=bounds.is_enough if bounds else None)
            await way.go(serving, request, submissions, arrival_s, scope, receive, send)
        except ClientGone:
            return

    async def _admit(self, ask: A) -> tuple[CompletionRequest, list[Submission]]:
        self._serving.check_open()
        self._serving.check_model(ask.model)
        request = await self._read(self._serving, ask)
        return request, await intake.completion(self._serving, request)


def completion(serving: Serving) -> Texts[CompletionAsk]:
    """/completion."""
    return Texts(serving, _COMPLETION, _of_completion)


def infill(serving: Serving) -> Texts[InfillAsk]:
    """/infill."""
    return Texts(serving, _INFILL, _of_infill)


async def _of_completion(serving: Serving, ask: CompletionAsk) -> CompletionRequest:
    texts = [] if isinstance(ask.prompt, str) else [part for part in ask.prompt if isinstance(part, str)]
    num_chars, limit = sum(map(len, texts)), serving.ready.max_model_len
    if num_chars > serving.max_prompt_chars or len(texts) > limit:
        words = f"prompt has {len(texts)} texts of {num_chars} characters in all, which cannot fit the model's context"
        raise HttpError(400, f"{words} of {limit} tokens; shorten it", param="prompt", code="context_length_exceeded")
    return await _made(serving, ask, _num_chars(texts), lambda: _joined(serving, ask.prompt))


async def _of_infill(serving: Serving, ask: InfillAsk) -> CompletionRequest:
    """What stands round the gap as token ids, behind as many of the other files as fit: the last of them."""
    prompts = serving.admission.prompts
    begun, extra = ask.prompt or "", [(each.filename or "tmp", each.text) for each in ask.input_extra or ()]
    most = ask.max_tokens if ask.n_predict is None else ask.n_predict
    room = _LEAST_ROOM if most is None or most < 0 else max(most, 1)
    limit = serving.ready.max_model_len

    def encoded() -> tuple[list[int], tuple[int, ...]]:
        marks = prompts.infill_marks()
        make = partial(prompts.infilled, marks, ask.input_prefix, ask.input_suffix, begun=begun)
        ids = make()
        left, kept = limit - room - len(ids), len(extra)
        while kept > 0:
            left -= len(prompts.tokenizer.encode(marks.files([extra[kept - 1]]), add_special_tokens=False))
            if left < 0:
                break
            kept -= 1
        return make(before=marks.files(extra[kept:])) if kept < len(extra) else ids, marks.end_token_ids

    num_chars = _num_chars([ask.input_prefix, ask.input_suffix, begun, *(part for each in extra for part in each)])
    try:
        ids, ends = encoded() if num_chars <= INLINE_CHARS else await serving.in_thread(encoded)
    except EngineError as error:
        raise refused(error, "input_prefix") from None
    found = await _made(serving, ask, 0, lambda: ids)
    if not ask.ignore_eos:
        found.stop_token_ids = list(ends)
    return found


async def _made(
    serving: Serving, ask: SampledFields, num_chars: int, prompt: Callable[[], str | list[int]]
) -> CompletionRequest:
    """A completion, to the end of the context where nothing else is said.

    Args: num_chars: what is encoded for the prompt; prompt: makes it. Raises: HttpError 400.
    """
    biases = ask.logit_bias or ()
    if len(biases) > MAX_IDS:
        raise HttpError(400, f"logit_bias holds more than {MAX_IDS} entries", param="logit_bias")
    num_chars += _num_chars(token for token in map(_token_of, biases) if isinstance(token, str))
    encode = partial(serving.tokenizer.encode, add_special_tokens=False)

    def made() -> CompletionRequest:
        return dialect.as_completion(ask, prompt(), encode)

    found = made() if num_chars <= INLINE_CHARS else await serving.in_thread(made)
    if found.max_tokens is None:
        found.max_tokens = serving.admission.advice.get("max_tokens") or serving.ready.max_model_len
    return found


def _token_of(bias: Any) -> Any:
    """The token of a pair, or of an object's field."""
    return bias if isinstance(bias, str) else bias[0]


def _num_chars(texts: Iterable[str]) -> int:
    """Of texts that are encoded each by itself: one that is short takes as long as some characters."""
    return sum(len(text) + 16 for text in texts)


def _joined(serving: Serving, prompt: MixedPrompt) -> str | list[int]:
    """A text, or ids; of both in turn ids, which begin as every prompt does where a text is first."""
    if isinstance(prompt, str):
        return prompt
    found: list[int] = []
    for place, each in enumerate(prompt):
        found += [each] if isinstance(each, int) else serving.tokenizer.encode(each, add_special_tokens=place == 0)
    return found


@contextmanager
def _in_its_words() -> Iterator[None]:
    """What is said inside about fields of a completion is said of those here."""
    try:
        yield
    except HttpError as error:
        if (told := dialect.FIELDS.get(error.param or "")) is not None:
            error.message, error.param = error.message.replace(str(error.param), told, 1), told
        raise


class LineBounds:
    """Where a text that an editor asked for has enough: n_indent and t_max_predict_ms. False: it has no such bounds.

    It is shown one text as it grows, and looks at each line of it once.
    """

    def __init__(self, ask: SampledFields) -> None:
        self._indent = ask.n_indent or 0
        self._most_s = (ask.t_max_predict_ms or 0) / 1000
        self._num_seen, self._at = 0, -1  # of a text that grows: looked at, so far; where the line begins, once found

    def __bool__(self) -> bool:
        return self._indent > 0 or self._most_s > 0

    def shown(self, text: str, *, is_over: bool = True) -> str:
        """The text without the first line that is indented less than the bound, and all that follows. Of one that goes
        on without the beginning of a line that may yet be such a one."""
        end = self._end(text)
        if end is None and self._indent and not is_over:
            at = text.rfind("\n") + 1
            if at and len(text) - at < self._indent and not text[at:].strip(" \t"):
                end = at
        return text if end is None else text[:end]

    def is_enough(self, tracked: Tracked) -> bool:
        """Whether there is such a line; or a line at all, and the time is over."""
        text = tracked.continuations[0].text()
        if self._end(text) is not None:
            return True
        first_s = tracked.times.first_token_s
        if self._most_s <= 0 or first_s is None or time.monotonic() - first_s <= self._most_s:
            return False
        return "\n" in text

    def _end(self, text: str) -> int | None:
        """Where the first line begins whose indentation is known and less; the first line goes on with another."""
        if self._at >= 0 or not self._indent:
            return self._at if self._at >= 0 else None
        at = text.find("\n", self._num_seen)
        while at >= 0:
            indent = _INDENT.match(text, at + 1)
            assert indent is not None, "it matches nothing, too"
            self._num_seen = at  # a line whose indentation is not known yet is looked at again
            if indent.end() == len(text):
                return None
            if indent.end() - at - 1 < self._indent:
                self._at = at + 1
                return self._at
            at = text.find("\n", at + 1)
        self._num_seen = len(text)
        return None


class Answer:
    """Makes the answer, or events of it. See generating.Answer."""

    def __init__(
        self,
        ask: SampledFields,
        bounds: LineBounds,
        serving: Serving,
        request: CompletionRequest,
        generation: Generation,
    ) -> None:
        self._ask, self._bounds, self._serving, self._generation = ask, bounds, serving, generation
        (self._tracked,) = generation.requests
        self._model = request.model or serving.names[0]
        self._is_prompt_only = request.max_tokens == 0
        self._writer = LogprobWriter(serving.tokenizer, False)
        self._num_told = 0
        self.tells_tokens = bool(ask.n_probs or ask.return_tokens)

    def whole(self) -> dict[str, Any]:
        """The answer when all is there, as far as it was asked for."""
        (continuation,) = self._tracked.continuations
        text = "" if self._is_prompt_only else self._bounds.shown(continuation.text())
        ids = [] if self._is_prompt_only or not self._ask.return_tokens else continuation.token_ids
        answer = self._end(text, text, ids, self._probs(continuation.logprobs))
        return chosen(answer, self._ask.response_fields)

    def chunks(self, piece: Piece) -> list[Completed]:
        """What to say of a piece."""
        if self._is_prompt_only:
            return []
        is_over = piece.finish_reason is not None
        shown = self._bounds.shown(self._tracked.continuations[0].text(), is_over=is_over)
        new, self._num_told = shown[self._num_told :], max(self._num_told, len(shown))
        if not (new or self.tells_tokens):
            return []
        return [
            Completed(
                content=new,
                tokens=piece.token_ids,
                tokens_predicted=piece.num_before + len(piece.token_ids),
                tokens_evaluated=len(self._tracked.submission.prompt_token_ids),
                completion_probabilities=self._probs(piece.logprobs),
                timings=self._timings() if self._ask.timings_per_token else UNSET,
            )
        ]

    def last(self) -> list[Completed]:
        """What to say after all pieces."""
        text = "" if self._is_prompt_only else self._bounds.shown(self._tracked.continuations[0].text())
        return [self._end("", text, [], UNSET)]

    def _end(self, told: str, text: str, ids: list[int], probs: list[PlaceProbs] | UnsetType) -> Completed:
        """Args: told: of the text what is told here."""
        tracked = self._tracked
        (continuation,), submission = tracked.continuations, tracked.submission
        word = continuation.stop_reason if isinstance(continuation.stop_reason, str) else ""
        ended = "word" if word else "eos" if continuation.finish_reason == "stop" else "limit"
        prompt = submission.prompt
        return Completed(
            content=told,
            stop=True,
            tokens=ids,
            tokens_predicted=0 if self._is_prompt_only else tracked.num_output_tokens,
            tokens_evaluated=len(submission.prompt_token_ids),
            completion_probabilities=probs,
            model=self._model,
            generation_settings=dialect.told_settings(self._ask, submission.params),
            prompt=self._serving.tokenizer.decode(submission.prompt_token_ids) if prompt is None else prompt,
            has_new_line="\n" in text,
            truncated=False,
            stop_type="limit" if self._is_prompt_only else ended,
            stopping_word=word,
            tokens_cached=len(submission.prompt_token_ids) + tracked.num_output_tokens,
            timings=self._timings(),
        )

    def _probs(self, entries: list[TokenLogprobs] | None) -> list[PlaceProbs] | UnsetType:
        num = self._ask.n_probs
        if not num or entries is None or self._is_prompt_only:
            return UNSET
        found = []
        for entry, told in zip(entries, self._writer.chat(entries, num).content, strict=True):
            best = sorted(range(len(entry.token_ids)), key=entry.ranks.__getitem__)
            top = [
                TokenProb(entry.token_ids[i], each.token, each.bytes, each.logprob)
                for i, each in zip(best, told.top_logprobs, strict=False)
            ]
            found.append(PlaceProbs(entry.token_ids[0], told.token, told.bytes, told.logprob, top))
        return found

    def _timings(self) -> Timings:
        num = 0 if self._is_prompt_only else self._tracked.num_output_tokens
        return Timings.of(self._generation.account, [self._tracked], num)


def chosen(answer: Completed, fields: list[str] | None) -> dict[str, Any]:
    """These fields of an answer, a/b being b of a; all, where none are named. Those that it does not
    have are left out."""
    told: dict[str, Any] = msgspec.to_builtins(answer)
    if not fields:
        return told
    found = {}
    for path in fields:
        value: Any = told
        for name in path.split("/"):
            value = value.get(name, UNSET) if isinstance(value, dict) else UNSET
        if value is not UNSET:
            found[path] = value
    return found


def _framed(ask: SampledFields, message: Completed) -> bytes:
    """An event; of the last one what was asked for, as of a whole answer."""
    return event(chosen(message, ask.response_fields) if message.stop else message)
