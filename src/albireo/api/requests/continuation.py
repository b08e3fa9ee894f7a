"""One continuation of a request as its caller sees it: tokens in, text and log-probabilities out.

Used by request_record.py and by the engine process's client. Does not know requests, steps or who reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from albireo.api.requests.output_text import OutputText
from albireo.outputs import CompletionOutput, FinishReason, Logprob, SampleLogprobs
from albireo.params import SamplingParams
from albireo.step import TokenLogprobs
from albireo.text.tokenizer import Tokenizer


class News(Protocol):
    """What a step brought to one continuation; see engine.request.SequenceUpdate."""

    @property
    def token_ids(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[TokenLogprobs] | None: ...
    @property
    def finish_reason(self) -> FinishReason | None: ...
    @property
    def stop_reason(self) -> int | str | None: ...


class Continuation:
    """One of a request's n outputs.

    Attributes:
        token_ids, logprobs: everything so far; logprobs is None when not asked for.
        finish_reason, stop_reason: why it ended; None while it goes on.
    """

    def __init__(
        self, index: int, params: SamplingParams, prompt_token_ids: Sequence[int], tokenizer: Tokenizer | None
    ) -> None:
        self.token_ids: list[int] = []
        self._index = index
        self._tokenizer = tokenizer
        self._text = None if tokenizer is None else OutputText(tokenizer, params, prompt_token_ids)
        # A stop string has to be seen when it comes; other text may wait until somebody looks.
        self._watched = self._text if params.stop else None
        self._shows_stop_token = params.include_stop_str_in_output
        self.logprobs: list[TokenLogprobs] | None = None if params.logprobs is None else []
        self._decoded: SampleLogprobs = []
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None

    def take(self, update: News) -> str | None:
        """Note new tokens, or the end. Returns: the stop string by which it has to be ended, or None."""
        num_before = len(self.token_ids)
        self.token_ids += update.token_ids
        if update.logprobs is not None and self.logprobs is not None:
            self.logprobs += update.logprobs
        if len(update.token_ids) > 1 and self._watched is not None and self._stops_early(num_before, self._watched):
            if update.finish_reason is None:
                return self._watched.matched
            self.end("stop", self._watched.matched)
        elif update.finish_reason is not None:
            self._end(update.finish_reason, update.stop_reason, bool(update.token_ids))
        elif self._watched is not None:
            self._watched.read(self.token_ids)
            return self._watched.matched
        return None

    def _stops_early(self, num_before: int, text: OutputText) -> bool:
        """Whether a stop string is complete before the last of the new tokens; then those behind it never were."""
        for num in range(num_before + 1, len(self.token_ids)):
            text.read(self.token_ids[:num])
            if text.matched is not None:
                del self.token_ids[num:]
                if self.logprobs is not None:
                    del self.logprobs[num:]
                return True
        return False

    def end(self, reason: FinishReason, stop_reason: int | str | None) -> None:
        """No more tokens come, for another reason than the last of them."""
        self._end(reason, stop_reason, False)

    def _end(self, reason: FinishReason, stop_reason: int | str | None, has_token: bool) -> None:
        self.finish_reason, self.stop_reason = reason, stop_reason
        text = self._text
        if text is None:
            return
        ends_in_stop_token = reason == "stop" and has_token and not self._shows_stop_token
        text.read(self.token_ids[:-1] if ends_in_stop_token else self.token_ids)
        text.end()
        if text.matched is not None and reason in ("stop", "length", "repetition"):
            # The last token, or a character that it completed, brought a stop string as well.
            self.finish_reason, self.stop_reason = "stop", text.matched

    def text(self) -> str:
        """What may be shown so far; a later text begins with it. Empty when nothing is detokenized."""
        text = self._text
        if text is None:
            return ""
        if self.finish_reason is None:
            text.read(self.token_ids)
        return text.text

    def output(self) -> CompletionOutput:
        """Everything so far; later updates do not change it. Cost: O(tokens so far), with a small constant."""
        raw = self.logprobs
        return CompletionOutput(
            index=self._index,
            text=self.text(),
            token_ids=self.token_ids.copy(),
            cumulative_logprob=None if raw is None else sum(entry.logprobs[0] for entry in raw),
            logprobs=None if raw is None else self._sample_logprobs(raw),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
        )

    def _sample_logprobs(self, raw: list[TokenLogprobs]) -> SampleLogprobs:
        self._decoded += [by_token(entry, self._tokenizer) for entry in raw[len(self._decoded) :]]
        return self._decoded.copy()


def by_token(entry: TokenLogprobs, tokenizer: Tokenizer | None) -> dict[int, Logprob]:
    """What was drawn at one place, by token id, with the tokens' texts where there is a tokenizer."""
    ids = entry.token_ids
    texts = [None] * len(ids) if tokenizer is None else tokenizer.token_strings(ids)
    return {
        token_id: Logprob(logprob, rank, text)
        for token_id, logprob, rank, text in zip(ids, entry.logprobs, entry.ranks, texts, strict=True)
    }
