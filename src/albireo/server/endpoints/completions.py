"""POST /v1/completions."""

from __future__ import annotations

import time

import msgspec

from albireo.api.requests.continuation import Continuation
from albireo.engine_process.tracked import Tracked
from albireo.server import intake
from albireo.server.endpoints.generating import GeneratingEndpoint, Way, as_it_is
from albireo.server.generation import Generation
from albireo.server.llama_timings import Timings
from albireo.server.logprobs import LogprobWriter
from albireo.server.protocol.completions import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from albireo.server.protocol.fields import Usage, usage
from albireo.server.serving import Serving
from albireo.server.streaming import Piece
from albireo.step import TokenLogprobs
from albireo.text.places import TextPlaces

_DECODER = msgspec.json.Decoder(CompletionRequest)


def completions(serving: Serving) -> GeneratingEndpoint[CompletionRequest, CompletionRequest]:
    """The endpoint."""
    return GeneratingEndpoint(serving, _DECODER, Way("cmpl", Answer), as_it_is, intake.completion)


class Answer:
    """Makes the answer, or chunks of it. See generating.Answer."""

    def __init__(self, serving: Serving, request: CompletionRequest, generation: Generation) -> None:
        self._request = request
        self._generation = generation
        self._name = generation.account.request_id
        self._created = int(time.time())
        self._model = request.model or serving.names[0]
        self._tokenizer = serving.tokenizer
        self._places: dict[int, TextPlaces] = {}  # by the index of the continuation
        self._writer = LogprobWriter(serving.tokenizer, bool(request.return_tokens_as_token_ids))
        # max_tokens 0 with echo: the prompt alone is wanted.
        self._is_prompt_only = request.max_tokens == 0
        options = request.stream_options
        self._counts_always = bool(options and options.continuous_usage_stats)
        self._counts_last = bool(
            (options and options.include_usage) or serving.settings.enable_force_include_usage or request.return_timings
        )
        self.tells_tokens = bool(request.logprobs is not None or request.return_token_ids or self._counts_always)

    # -- whole ---------------------------------------------------------------------------------------------------------

    def whole(self) -> Completion:
        """The answer when all is there."""
        choices: list[CompletionChoice] = []
        for tracked in self._generation.requests:
            choices += [self._choice(len(choices) + k, tracked, c) for k, c in enumerate(tracked.continuations)]
        answer = Completion(self._name, self._created, self._model, choices, usage=self._usage(is_last=True))
        if self._request.timings_per_token:
            answer.timings = self._timings()
        return answer

    def _timings(self) -> Timings:
        requests = self._generation.requests
        num = 0 if self._is_prompt_only else sum(tracked.num_output_tokens for tracked in requests)
        return Timings.of(self._generation.account, requests, num)

    def _choice(self, index: int, tracked: Tracked, continuation: Continuation) -> CompletionChoice:
        request = self._request
        text, ids, logprobs = continuation.text(), continuation.token_ids, continuation.logprobs
        reason, stop_reason = continuation.finish_reason, continuation.stop_reason
        if self._is_prompt_only:
            text, ids, reason, stop_reason = "", [], "length", None
            logprobs = None if logprobs is None else []
        if request.echo:
            text = self._prompt_text(tracked) + text
        choice = CompletionChoice(
            index, text, self._logprobs(index, tracked, ids, logprobs, request.echo), reason, stop_reason
        )
        if request.return_token_ids:
            choice.token_ids, choice.prompt_token_ids = ids, tracked.submission.prompt_token_ids
        if request.prompt_logprobs is not None:
            choice.prompt_logprobs = self._writer.prompt(tracked.prompt_logprobs or [])
        return choice

    def _logprobs(
        self, index: int, tracked: Tracked, ids: list[int], entries: list[TokenLogprobs] | None, is_echo: bool | None
    ) -> CompletionLogprobs | None:
        """Of what is new of a continuation; is_echo: its prompt is."""
        num = self._request.logprobs
        if num is None or entries is None:
            return None
        if self._request.logprob_token_ids:
            num = -1  # what there is beside the token's own is what was named
        places = self._places_of(index, tracked).take(ids)
        if not is_echo:
            return self._writer.completion(ids, entries, num, places)
        prompt, text = tracked.submission.prompt_token_ids, self._prompt_text(tracked)
        before = TextPlaces(self._tokenizer, text.startswith).take(prompt)
        scores = [None, *(tracked.prompt_logprobs or []), *entries]
        return self._writer.completion([*prompt, *ids], scores, num, [*before, *places])

    def _places_of(self, index: int, tracked: Tracked) -> TextPlaces:
        """Where the next tokens of a continuation begin."""
        if index not in self._places:
            shown = not tracked.submission.params.skip_special_tokens
            self._places[index] = TextPlaces(
                self._tokenizer,
                lambda text, place: shown,
                prompt_token_ids=tracked.submission.prompt_token_ids,
                place=len(self._prompt_text(tracked)) if self._request.echo else 0,
            )
        return self._places[index]

    def _prompt_text(self, tracked: Tracked) -> str:
        text = tracked.submission.prompt
        return self._tokenizer.decode(tracked.submission.prompt_token_ids) if text is None else text

    def _usage(self, *, is_last: bool = False) -> Usage:
        requests = self._generation.requests
        counts = usage(
            sum(len(tracked.submission.prompt_token_ids) for tracked in requests),
            0 if self._is_prompt_only else sum(tracked.num_output_tokens for tracked in requests),
            sum(tracked.num_cached_tokens for tracked in requests),
        )
        if is_last and self._request.return_timings:
            counts.timings = self._generation.account.timings()
        return counts

    # -- in chunks -----------------------------------------------------------------------------------------------------

    def chunks(self, piece: Piece) -> list[Completion]:
        """What to say of a piece."""
        request = self._request
        tracked, text, ids, entries = piece.tracked, piece.text, piece.token_ids, piece.logprobs
        choice = CompletionChoice(piece.index, text, None, piece.finish_reason, piece.stop_reason)
        if self._is_prompt_only:
            if not piece.finish_reason:
                return []
            choice.text, choice.finish_reason, choice.stop_reason = "", "length", None
            ids, entries = [], None if entries is None else []
        is_echo = request.echo and piece.is_first
        if is_echo:
            choice.text = self._prompt_text(tracked) + choice.text
        choice.logprobs = self._logprobs(piece.index, tracked, ids, entries, is_echo)
        if request.return_token_ids:
            choice.token_ids = ids
            if piece.is_first:
                choice.prompt_token_ids = tracked.submission.prompt_token_ids
        chunk = Completion(self._name, self._created, self._model, [choice])
        if self._counts_always:
            chunk.usage = self._usage()
        elif self._counts_last:
            chunk.usage = None
        if self._request.timings_per_token:
            chunk.timings = self._timings()
        return [chunk]

    def last(self) -> list[Completion]:
        """What to say after all pieces."""
        if not self._counts_last:
            return []
        return [Completion(self._name, self._created, self._model, [], usage=self._usage(is_last=True))]
