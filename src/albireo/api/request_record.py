"""What is known of one running request: updates in, RequestOutput out. Work nobody looks at is not done.

Called by driver.py, on the thread that steps. Does not know scheduling, or who reads the outputs.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.api.admission import Submission
from albireo.api.output_text import OutputText
from albireo.engine.request import RequestProgress, SequenceUpdate
from albireo.outputs import CompletionOutput, FinishReason, Logprob, PromptLogprobs, RequestOutput, SampleLogprobs
from albireo.step import TokenLogprobs
from albireo.text.tokenizer import Tokenizer


class RequestRecord:
    """Invariant: is_finished turns True once, with the update that ends the last continuation."""

    def __init__(self, request_id: str, submission: Submission, tokenizer: Tokenizer | None) -> None:
        self.request_id = request_id
        self.submission = submission
        self.is_finished = False
        self._tokenizer = tokenizer if submission.params.detokenize else None
        self._continuations = [Continuation(index, submission, self._tokenizer) for index in range(submission.params.n)]
        self._progress: RequestProgress | None = None
        self._prompt_logprobs: PromptLogprobs = [None]

    def take(self, update: SequenceUpdate) -> str | None:
        """Note what a step brought. Returns: the stop string by which the continuation has to be ended, or None."""
        self._progress = update.progress
        if update.is_request_finished:
            self.is_finished = True
        return self._continuations[update.index].take(update)

    @property
    def num_output_tokens(self) -> int:
        """Tokens produced so far, by all continuations."""
        return sum(len(continuation.token_ids) for continuation in self._continuations)

    def output(self) -> RequestOutput:
        """Everything so far; later updates do not change it. Cost: O(tokens so far), with a small constant."""
        progress = self._progress
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.submission.prompt,
            prompt_token_ids=self.submission.prompt_token_ids,
            outputs=[continuation.output() for continuation in self._continuations],
            finished=self.is_finished,
            prompt_logprobs=self._prompt(progress),
            num_cached_tokens=0 if progress is None else progress.num_cached_tokens,
            metrics=None if progress is None else replace(progress.metrics),
        )

    def _prompt(self, progress: RequestProgress | None) -> PromptLogprobs | None:
        if progress is None or progress.prompt_logprobs is None:
            return None
        known = self._prompt_logprobs
        known += [_by_token(entry, self._tokenizer) for entry in progress.prompt_logprobs[len(known) - 1 :]]
        return list(known)


class Continuation:
    """One of a request's n outputs."""

    def __init__(self, index: int, submission: Submission, tokenizer: Tokenizer | None) -> None:
        params = submission.params
        self.token_ids: list[int] = []
        self._index = index
        self._tokenizer = tokenizer
        self._text = None if tokenizer is None else OutputText(tokenizer, params, submission.prompt_token_ids)
        # A stop string has to be seen when it comes; other text may wait until somebody looks.
        self._watched = self._text if params.stop else None
        self._shows_stop_token = params.include_stop_str_in_output
        self._logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._decoded: SampleLogprobs = []
        self._finish_reason: FinishReason | None = None
        self._stop_reason: int | str | None = None

    def take(self, update: SequenceUpdate) -> str | None:
        """See RequestRecord.take()."""
        self.token_ids += update.token_ids
        if update.logprobs is not None and self._logprobs is not None:
            self._logprobs += update.logprobs
        if update.finish_reason is not None:
            self._end(update.finish_reason, update.stop_reason, bool(update.token_ids))
        elif self._watched is not None:
            self._watched.read(self.token_ids)
            return self._watched.matched
        return None

    def _end(self, reason: FinishReason, stop_reason: int | str | None, has_token: bool) -> None:
        self._finish_reason, self._stop_reason = reason, stop_reason
        text = self._text
        if text is None:
            return
        ends_in_stop_token = reason == "stop" and has_token and not self._shows_stop_token
        text.read(self.token_ids[:-1] if ends_in_stop_token else self.token_ids)
        text.end()
        if text.matched is not None and reason in ("stop", "length"):
            # The last token, or a character that it completed, brought a stop string as well.
            self._finish_reason, self._stop_reason = "stop", text.matched

    def output(self) -> CompletionOutput:
        """See RequestRecord.output()."""
        text = self._text
        if text is not None and self._finish_reason is None:
            text.read(self.token_ids)
        raw = self._logprobs
        return CompletionOutput(
            index=self._index,
            text="" if text is None else text.text,
            token_ids=self.token_ids.copy(),
            cumulative_logprob=None if raw is None else sum(entry.logprobs[0] for entry in raw),
            logprobs=None if raw is None else self._sample_logprobs(raw),
            finish_reason=self._finish_reason,
            stop_reason=self._stop_reason,
        )

    def _sample_logprobs(self, raw: list[TokenLogprobs]) -> SampleLogprobs:
        self._decoded += [_by_token(entry, self._tokenizer) for entry in raw[len(self._decoded) :]]
        return self._decoded.copy()


def _by_token(entry: TokenLogprobs, tokenizer: Tokenizer | None) -> dict[int, Logprob]:
    ids = entry.token_ids
    texts = [None] * len(ids) if tokenizer is None else tokenizer.token_strings(ids)
    return {
        token_id: Logprob(logprob, rank, text)
        for token_id, logprob, rank, text in zip(ids, entry.logprobs, entry.ranks, texts, strict=True)
    }
