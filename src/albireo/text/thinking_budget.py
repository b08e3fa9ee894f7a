"""How much an output may think: counts its tokens between the marks, and says when the end is due.

Made by api and by the engine process, asked by the sampler (step.ThinkingBudget). Reads text, as the parsers that tell
thoughts from answers do: thinking is the beginning of an output, and a model may spell its marks in any tokens.
Does not know logits, requests or formats.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.params import ThinkingMarks
from albireo.text.detokenizer import IncrementalDetokenizer
from albireo.text.tokenizer import Tokenizer


class ThinkingMeter:
    """Implements step.ThinkingBudget. Invariant: the answer depends on the output tokens alone; what is kept from the
    last call only saves reading them again. So a preempted, resumed or retried sequence goes on as ever.

    Args: budget: tokens between the marks; those of the marks do not count.
    """

    _text: IncrementalDetokenizer
    _num_seen: int
    _num_thoughts: int
    _held: str
    _is_thinking: bool
    _is_over: bool

    def __init__(self, tokenizer: Tokenizer, marks: ThinkingMarks, budget: int) -> None:
        self._tokenizer = tokenizer
        self._marks = marks
        self._budget = budget
        self._begin()

    def forced(self, output_token_ids: Sequence[int]) -> int | None:
        """See step.ThinkingBudget. Cost: a microsecond a new token."""
        if len(output_token_ids) < self._num_seen:
            self._begin()
        if not self._is_over:
            for token_id in output_token_ids[self._num_seen :]:
                self._take(token_id)
        self._num_seen = len(output_token_ids)
        num_beyond = self._num_thoughts - self._budget
        if self._is_over or not self._is_thinking or num_beyond < 0:
            return None
        return self._next_of_end(output_token_ids, num_beyond)

    def _begin(self) -> None:
        self._text = IncrementalDetokenizer(self._tokenizer, skip_special_tokens=False)
        self._num_seen = self._num_thoughts = 0
        self._held = ""
        self._is_thinking, self._is_over = self._marks.is_open, False

    def _take(self, token_id: int) -> None:
        if self._is_over:
            return
        text = self._text.push([token_id])
        self._held += text
        if self._is_thinking:
            self._num_thoughts += 1
        else:
            self._look_for_begin()
        if self._is_thinking:
            end = self._marks.end
            self._is_over = end in self._held
            self._held = self._held[-len(end) :]

    def _look_for_begin(self) -> None:
        """Blanks, and the opening mark; with anything else in front there is no thinking."""
        begin, said = self._marks.begin, self._held.lstrip()
        if said.startswith(begin):
            self._is_thinking = True
            self._held = said[len(begin) :]
        else:
            self._is_over = not begin.startswith(said)
            self._held = said

    def _next_of_end(self, output: Sequence[int], num_beyond: int) -> int:
        """What comes next of the end, of which the last tokens beyond the budget may be the beginning."""
        end = self._marks.end_token_ids
        num_there = min(num_beyond, len(end) - 1)
        while num_there and tuple(output[len(output) - num_there :]) != end[:num_there]:
            num_there -= 1
        return end[num_there]
