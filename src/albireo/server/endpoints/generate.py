"""POST /inference/v1/generate and /v1/…/render, vLLM's: what a request is in tokens, and tokens in, tokens out.

Who has prompts rendered here and answers made here has what the routes of texts would have said. Tokens in are a
completion of this server, but that nothing is recommended to it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from albireo.api.requests.submission import Submission
from albireo.params import FILLED_FIELDS, SamplingParams
from albireo.server import intake
from albireo.server.body import ClientGone, converted_object, parse
from albireo.server.endpoints.generating import GeneratingEndpoint, Way
from albireo.server.errors import HttpError, unsupported
from albireo.server.forms import blaming
from albireo.server.generation import Generation, answer_id
from albireo.server.logprobs import LOWEST, LogprobWriter
from albireo.server.protocol.chat import ChatLogprobs
from albireo.server.protocol.completions import CompletionRequest
from albireo.server.protocol.fields import GenerationFields, Usage, unneutral, usage
from albireo.server.protocol.generate import (
    GENERATE_NEUTRAL,
    SAMPLING_BESIDE,
    SAMPLING_NEUTRAL,
    ChancesOfTokens,
    GenerateTokensAsk,
    Rendered,
    TokenChance,
    TokenChances,
    TokenSampling,
    TokensAnswer,
    TokensChoice,
)
from albireo.server.serving import Serving
from albireo.server.streaming import Piece
from albireo.step import TokenLogprobs

B = TypeVar("B", bound=msgspec.Struct)
R = TypeVar("R", bound=GenerationFields)
_DECODER = msgspec.json.Decoder(GenerateTokensAsk)
#: Of SamplingParams, what a request of tokens cannot say, or need not: the prompt was cut already.
_NOT_RENDERED = (*FILLED_FIELDS, "output_kind", "best_of", "truncate_prompt_tokens", "truncation_side")


class TokensRequest(CompletionRequest, kw_only=True, forbid_unknown_fields=True):
    """The completion that is asked for, and how it is told."""

    tells_text: bool
    tells_prompt: bool


def generate(serving: Serving) -> GeneratingEndpoint[GenerateTokensAsk, TokensRequest]:
    """/inference/v1/generate."""
    way = Way("generate-tokens", Answer)
    return GeneratingEndpoint(serving, _DECODER, way, _completion, intake.completion)


def _completion(serving: Serving, ask: GenerateTokensAsk) -> TokensRequest:
    """Raises: HttpError 400."""
    if (asked := unneutral(ask, GENERATE_NEUTRAL)) is not None:
        raise unsupported(*asked)
    sampling = converted_object(ask.sampling_params, TokenSampling, "sampling_params")
    if (asked := unneutral(sampling, SAMPLING_NEUTRAL)) is not None:
        raise unsupported(f"sampling_params.{asked[0]}", asked[1])
    said = {name: getattr(sampling, name) for name in TokenSampling.__struct_fields__ if name not in SAMPLING_BESIDE}
    said["max_tokens"] = sampling.max_tokens or serving.ready.max_model_len
    return TokensRequest(
        **said,
        prompt=list(ask.token_ids),
        model=ask.model,
        request_id=ask.request_id,
        stream=ask.stream,
        stream_options=ask.stream_options,
        cache_salt=ask.cache_salt,
        priority=ask.priority,
        tells_text=ask.output_mode == "text",
        tells_prompt=bool(ask.return_token_ids),
    )


class Answer:
    """Makes the answer, or chunks of it. See generating.Answer."""

    tells_tokens = True

    def __init__(self, serving: Serving, request: TokensRequest, generation: Generation) -> None:
        self._request, self._generation = request, generation
        (self._tracked,) = generation.requests
        self._model = request.model or serving.names[0]
        self._writer = LogprobWriter(serving.tokenizer, False)
        options = request.stream_options
        self._counts_always = bool(options and options.continuous_usage_stats)
        self._counts_last = bool((options and options.include_usage) or serving.settings.enable_force_include_usage)
        self._is_first = True

    def whole(self) -> TokensAnswer:
        """The answer when all is there."""
        choices = [
            self._choice(index, each.text(), each.token_ids, each.logprobs, each.finish_reason, each.stop_reason)
            for index, each in enumerate(self._tracked.continuations)
        ]
        answer = self._told(choices)
        answer.model, answer.created, answer.usage = self._model, int(time.time()), self._usage()
        if self._request.prompt_logprobs is not None:
            answer.prompt_logprobs = self._writer.prompt(self._tracked.prompt_logprobs or [])
        return answer

    def chunks(self, piece: Piece) -> list[TokensAnswer]:
        """What to say of a piece."""
        choice = self._choice(
            piece.index, piece.text, piece.token_ids, piece.logprobs, piece.finish_reason, piece.stop_reason
        )
        chunk = self._told([choice])
        if self._counts_always:
            chunk.usage = self._usage()
        return [chunk]

    def last(self) -> list[TokensAnswer]:
        """What to say after all pieces."""
        if not self._counts_last:
            return []
        last = self._told([])
        last.usage = self._usage()
        return [last]

    def _told(self, choices: list[TokensChoice]) -> TokensAnswer:
        request = self._request
        mode = "text" if request.tells_text else "tokens"
        answer = TokensAnswer(request_id=self._generation.account.request_id, output_mode=mode, choices=choices)
        if request.tells_prompt and self._is_first:
            answer.prompt_token_ids = self._tracked.submission.prompt_token_ids
        self._is_first = False
        return answer

    def _choice(
        self,
        index: int,
        text: str,
        ids: list[int],
        entries: list[TokenLogprobs] | None,
        finish_reason: str | None,
        stop_reason: int | str | None,
    ) -> TokensChoice:
        choice = TokensChoice(index, finish_reason, stop_reason, ids, self._logprobs(entries))
        if self._request.tells_text:
            choice.text = text
        return choice

    def _logprobs(self, entries: list[TokenLogprobs] | None) -> ChancesOfTokens | ChatLogprobs | None:
        num, named = self._request.logprobs, self._request.logprob_token_ids
        if num is None or entries is None:
            return None
        if self._request.tells_text:
            return self._writer.chat(entries, num, frozenset(named) if named else None)
        return ChancesOfTokens(list(map(_chances, entries)))

    def _usage(self) -> Usage:
        tracked = self._tracked
        num_prompt = len(tracked.submission.prompt_token_ids)
        return usage(num_prompt, tracked.num_output_tokens, tracked.num_cached_tokens)


def _chances(entry: TokenLogprobs) -> TokenChances:
    """The token that was drawn, in front of the others, which are in the order of their ranks."""
    first, *rest = (
        TokenChance(token, max(logprob, LOWEST), rank)
        for token, logprob, rank in zip(entry.token_ids, entry.logprobs, entry.ranks, strict=True)
    )
    others = sorted((each for each in rest if each.token_id != first.token_id), key=lambda each: each.rank)
    return TokenChances(first.token_id, first.logprob, first.rank, [first, *others])


class Render(Generic[B, R]):
    """A route whose request is told in tokens, and not run, as an ASGI application."""

    def __init__(self, endpoint: GeneratingEndpoint[B, R], prefix: str, *, tells_several: bool = False) -> None:
        """Args: endpoint: that would run it; prefix: of its answers' ids; tells_several: the answer is a list."""
        self._endpoint, self._prefix, self._tells_several = endpoint, prefix, tells_several

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoint
        serving = endpoint.serving
        try:
            async with serving.bodies.read(scope, receive) as body:
                request = endpoint.read(serving, parse(body, endpoint.decoder))
                if request.use_beam_search:
                    raise unsupported("use_beam_search", True, "a search is no request of tokens; leave it out")
                with blaming(request, endpoint.way.form):
                    submissions = await endpoint.admit(serving, request)
            name = answer_id(serving, scope, self._prefix, request.request_id)
            told = [self._told(request, each, name, index, submissions) for index, each in enumerate(submissions)]
            answer = msgspec.json.encode(told if self._tells_several else told[0])
            await Response(answer, media_type="application/json")(scope, receive, send)
        except ClientGone:
            return

    def _told(self, request: R, made: Submission, name: str, index: int, all_made: Sequence[Submission]) -> Rendered:
        if made.images:
            raise HttpError(
                400, "pictures, sounds and videos are no token ids, and a request of tokens has none of them; leave "
                "them out, or ask for the answer itself", param="messages", code="unsupported",
            )  # fmt: skip
        return Rendered(
            request_id=name if len(all_made) == 1 else f"{name}-{index}",
            token_ids=made.prompt_token_ids,
            sampling_params=rendered(made.params),
            model=request.model or self._endpoint.serving.names[0],
            stream=bool(request.stream),
            stream_options=request.stream_options if request.stream else None,
            cache_salt=request.cache_salt,
            priority=request.priority or 0,
        )


def rendered(params: SamplingParams) -> dict[str, Any]:
    """Fields that are not as they are where nothing is said; max_tokens always."""
    found = {"max_tokens": params.max_tokens}
    for field in fields(params):
        value = getattr(params, field.name)
        # a tuple of none is how a list of none is kept
        if field.name in _NOT_RENDERED or value in (None, field.default, ()):
            continue
        found[field.name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    """A value as JSON has it: of objects the fields that say something."""
    if hasattr(value, "__dataclass_fields__"):
        told = {field.name: getattr(value, field.name) for field in fields(value)}
        return {name: each for name, each in told.items() if each is not None and each is not False}
    if isinstance(value, dict):
        return {str(key): each for key, each in value.items()}
    return value
