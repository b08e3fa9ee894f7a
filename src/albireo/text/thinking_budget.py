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

    Args: budget: tokens between the marks, of all thoughts together; those of the marks do not count.
    """

    _text: IncrementalDetokenizer
    _num_seen: int
    _num_thoughts: int
    _held: str
    _is_first: bool
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
        self._is_thinking = self._marks.is_open
        self._is_first, self._is_over = not self._is_thinking, False

    def _take(self, token_id: int) -> None:
        if self._is_over:
            return
        self._held += self._text.push([token_id])
        if self._is_thinking:
            self._num_thoughts += 1
            self._look_for_end()
        elif self._is_first:
            self._look_for_first()
        else:
            self._look_for_next()

    def _look_for_first(self) -> None:
        """Blanks, and the opening mark; with anything else in front these are no thoughts."""
        begin, said = self._marks.begin, self._held.lstrip()
        if said.startswith(begin):
            self._think(said[len(begin) :])
        elif not begin.startswith(said):
            self._is_first = False
            self._look_for_next()

    def _look_for_next(self) -> None:
        again = self._marks.again
        _, mark, behind = self._held.partition(again) if again else ("", "", "")
        if mark:
            self._think(behind)
        else:
            self._held = self._held[-len(again) :]
            self._is_over = not again

    def _think(self, said: str) -> None:
        self._is_first, self._is_thinking, self._held = False, True, said

    def _look_for_end(self) -> None:
        end = self._marks.end
        _, mark, behind = self._held.partition(end)
        if not mark:
            self._held = self._held[-len(end) :]
            return
        num_thoughts = max(0, self._num_thoughts - len(self._marks.end_token_ids))
        self._num_thoughts = min(num_thoughts, self._budget)
        self._is_thinking, self._held = False, behind
        self._look_for_next()

    def _next_of_end(self, output: Sequence[int], num_beyond: int) -> int:
        """What comes next of the end, of which the last tokens beyond the budget may be the beginning."""
        end = self._marks.end_token_ids
        num_there = min(num_beyond, len(end) - 1)
        while num_there and tuple(output[len(output) - num_there :]) != end[:num_there]:
            num_there -= 1
        return end[num_there]
