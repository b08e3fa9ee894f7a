"""Outputs that hold all so far -> those that SamplingParams.output_kind asks for.

Used by async_llm.py; llm.py, whose outputs are whole, refuses what asks for others. Does not know the engine.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.errors import UnsupportedFeature
from albireo.outputs import CompletionOutput, RequestOutput
from albireo.params import RequestOutputKind, SamplingParams


class Teller:
    """Of one request. What of() is given are its outputs in order."""

    def __init__(self, kind: RequestOutputKind) -> None:
        self._kind = kind
        self._told: dict[int, tuple[int, int]] = {}  # by index: characters and tokens
        self._ended: set[int] = set()
        self._is_first = True

    def of(self, output: RequestOutput) -> RequestOutput | None:
        """What to tell; None: nothing."""
        if self._kind is RequestOutputKind.CUMULATIVE or (
            self._kind is RequestOutputKind.FINAL_ONLY and output.finished
        ):
            return output
        if self._kind is RequestOutputKind.FINAL_ONLY:
            return None
        new = [each for whole in output.outputs if (each := self._new(whole)) is not None]
        if not new and not output.finished:
            return None
        scores = output.prompt_logprobs if self._is_first else None  # once, as all else
        self._is_first = False
        return replace(output, outputs=new, prompt_logprobs=scores)

    def _new(self, whole: CompletionOutput) -> CompletionOutput | None:
        num_chars, num_tokens = self._told.get(whole.index, (0, 0))
        has_news = len(whole.text) > num_chars or len(whole.token_ids) > num_tokens
        if whole.index in self._ended or not (has_news or whole.finished()):
            return None
        self._told[whole.index] = len(whole.text), len(whole.token_ids)
        if whole.finished():
            self._ended.add(whole.index)
        return replace(
            whole,
            text=whole.text[num_chars:],
            token_ids=whole.token_ids[num_tokens:],
            logprobs=None if whole.logprobs is None else whole.logprobs[num_tokens:],
        )


def check_whole(params: SamplingParams) -> SamplingParams:
    """The same. Raises: UnsupportedFeature for outputs that are not whole."""
    if params.output_kind is RequestOutputKind.DELTA:
        raise UnsupportedFeature("output_kind=DELTA goes with AsyncLLM: outputs of LLM are whole; leave it out")
    return params
