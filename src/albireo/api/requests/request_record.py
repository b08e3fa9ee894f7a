"""What is known of one running request: updates in, RequestOutput out. Work nobody looks at is not done.

Called by driver.py, on the thread that steps. Does not know scheduling, or who reads the outputs.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.api.requests.continuation import Continuation, by_token
from albireo.api.requests.submission import Submission
from albireo.engine.request import RequestProgress, SequenceUpdate
from albireo.errors import EngineError
from albireo.outputs import EmbeddingOutput, EmbeddingRequestOutput, PromptLogprobs, RequestMetrics, RequestOutput
from albireo.step import Floats
from albireo.text.tokenizer import Tokenizer


class RequestRecord:
    """Invariant: is_finished turns True once, with the update that ends the last continuation."""

    def __init__(
        self, request_id: str, submission: Submission, tokenizer: Tokenizer | None, arrival_time: float = 0.0
    ) -> None:
        """Args: arrival_time: when it came in, seconds since 1970."""
        self.request_id = request_id
        self.submission = submission
        self.arrival_time = arrival_time
        self.is_finished = False
        self._tokenizer = tokenizer if submission.params.detokenize else None
        self._continuations = [
            Continuation(index, submission.params, submission.prompt_token_ids, self._tokenizer)
            for index in range(submission.params.n)
        ]
        self._progress: RequestProgress | None = None
        self._prompt_logprobs: PromptLogprobs = [None]
        self._embedding: Floats | None = None

    def take(self, update: SequenceUpdate) -> str | None:
        """Note what a step brought. Returns: the stop string by which the continuation has to be ended, or None."""
        self._progress = update.progress
        if update.is_request_finished:
            self.is_finished = True
        if update.embedding is not None:
            self._embedding = update.embedding
        return self._continuations[update.index].take(update)

    @property
    def num_output_tokens(self) -> int:
        """Tokens produced so far, by all continuations."""
        return sum(len(continuation.token_ids) for continuation in self._continuations)

    def output(self) -> RequestOutput:
        """Everything so far; later updates do not change it. Cost: O(tokens so far), with a small constant."""
        progress, adapter = self._progress, self.submission.lora_request
        outputs = [continuation.output() for continuation in self._continuations]
        if adapter is not None:
            outputs = [replace(output, lora_request=adapter) for output in outputs]
        return RequestOutput(
            request_id=self.request_id,
            prompt=self.submission.prompt,
            prompt_token_ids=self.submission.prompt_token_ids,
            outputs=outputs,
            finished=self.is_finished,
            prompt_logprobs=self._prompt(progress),
            num_cached_tokens=0 if progress is None else progress.num_cached_tokens,
            metrics=self._metrics(progress),
            lora_request=adapter,
        )

    def embedding(self) -> EmbeddingRequestOutput:
        """The embedding, or a classifier's scores, once the request is finished.

        Raises: EngineError when it ended without one.
        """
        ids, progress = self.submission.prompt_token_ids, self._progress
        if self._embedding is None or progress is None:
            reason = self._continuations[0].stop_reason or "it was aborted"
            raise EngineError(f"request {self.request_id} of {len(ids)} tokens was not computed: {reason}")
        output = EmbeddingOutput(self._embedding)  # type: ignore[arg-type]  # a list where it is a text's
        return EmbeddingRequestOutput(
            self.request_id, output, ids, True, progress.num_cached_tokens, self._metrics(progress)
        )

    def _metrics(self, progress: RequestProgress | None) -> RequestMetrics | None:
        if progress is None:
            return None
        return replace(progress.metrics, arrival_time=self.arrival_time, num_generation_tokens=self.num_output_tokens)

    def _prompt(self, progress: RequestProgress | None) -> PromptLogprobs | None:
        if progress is None or progress.prompt_logprobs is None:
            return None
        known = self._prompt_logprobs
        known += [by_token(entry, self._tokenizer) for entry in progress.prompt_logprobs[len(known) - 1 :]]
        return list(known)
