"""The text of one continuation: tokens pushed in, characters out, up to a stop string.

Called by continuation.py. Does not know requests, log-probabilities or the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.params import SamplingParams
from albireo.text.detokenizer import IncrementalDetokenizer
from albireo.text.stop import StopMatcher
from albireo.text.tokenizer import Tokenizer


class OutputText:
    """Invariants: 1. text never takes back a character; 2. after a stop string nothing is added.

    Attributes:
        text: what may be shown so far.
        matched: the stop string that ended the text, or None.
    """

    def __init__(self, tokenizer: Tokenizer, params: SamplingParams, prompt_token_ids: Sequence[int]) -> None:
        self.text = ""
        self.matched: str | None = None
        self._detokenizer = IncrementalDetokenizer(
            tokenizer,
            skip_special_tokens=params.skip_special_tokens,
            spaces_between_special_tokens=params.spaces_between_special_tokens,
            prompt_token_ids=prompt_token_ids,
        )
        stops = params.stop or ()
        self._matcher = StopMatcher(list(stops), params.include_stop_str_in_output) if stops else None
        self._min_tokens = params.min_tokens
        self._num_read = 0

    def read(self, token_ids: Sequence[int]) -> None:
        """Take what is new in token_ids, all tokens so far. Cost: about a microsecond a new token."""
        if self._num_read == len(token_ids):
            return
        new = token_ids[self._num_read :]
        if self._matcher is None:
            self.text += self._detokenizer.push(new)
            self._num_read = len(token_ids)
            return
        for token_id in new:
            self._num_read += 1
            self._show(self._detokenizer.push((token_id,)))

    def end(self) -> None:
        """No more tokens come: show what was held back."""
        self._show(self._detokenizer.flush())
        if self._matcher is not None:
            self.text += self._matcher.flush()

    def _show(self, text: str) -> None:
        if self._matcher is None:
            self.text += text
        elif self.matched is None and text:
            # As in vLLM, stop strings count from the token after the min_tokens-th on.
            self.text += self._matcher.push(text, self._num_read > self._min_tokens)
            self.matched = self._matcher.matched
