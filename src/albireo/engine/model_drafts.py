"""ModelDrafts: how many drafts of a draft model are worth their rows, before they are made.

Called by drafting.py, which finds rows and places for them. Does not know how they are made (model_guesses.py).

A guess takes steps of the draft model, which are in the measured time of the step that has its drafts: so a row costs
what it takes to compute and to guess. What it brings is the acceptance rate of its sequence, which is learnt from
drafts that were made; hence the trials.
"""

from __future__ import annotations

from collections.abc import Container

from albireo.engine.model_guesses import ModelGuesses
from albireo.engine.request import Sequence
from albireo.speculative.acceptance import Acceptance, Experience
from albireo.speculative.pacing import Pacing

#: One step in so many is a trial, in which a sequence that is guessed badly for has one draft all the same, and one has
#: none, so that it is seen what a step takes without: of the first steps, and of later ones.
TRIAL_EVERY, NUM_FIRST, LATER_TRIAL_EVERY = 4, 32, 16
#: Of steps that have no drafts since they are not worth it one in so many counts: what drafts cost is not forgotten
#: soon, since it costs a prompt to learn it again.
USUAL_EVERY = 8
#: Whose prompt the draft model has not seen is tried in one step of so many.
CATCH_UP_TRIAL_EVERY = 256
#: A token of a prompt that the draft model has not seen costs about so much less than a decoded one gains: whoever has
#: not decoded enough to believe in as many more does without. A head is one layer.
PATIENCE, PATIENCE_OF_HEADS = 12, 100


class ModelDrafts:
    """Attributes:
        is_usual: the step that was planned last takes what others of as many rows take, and is to count.
        is_trial: of what nums() gave last some is not worth it, and tried all the same. is_pause: it gave nothing, so
            that a step without drafts is seen.

    Args: num_most: drafts of one sequence in one step. max_positions: longest sequence that the draft model knows.
        is_head: it is a head that drafts.
    """

    def __init__(self, guesses: ModelGuesses, num_most: int, max_positions: int, is_head: bool) -> None:
        self.is_usual = True
        self.is_trial = self.is_pause = False
        self._guesses, self._num_most, self._max_positions = guesses, num_most, max_positions
        self._is_head = is_head
        self._experience = Experience(num_most, is_by_place=True)
        self._acceptances: dict[int, Acceptance] = {}
        self._num_plans = 0

    def nums(
        self,
        scheduled: list[Sequence],
        num_spare: int,
        worth: float,
        pacing: Pacing,
        barred: Container[int] = (),
        *,
        of_next: bool = False,
    ) -> dict[int, int]:
        """How many drafts each sequence is to have, by place among scheduled: the likeliest first.

        Args: num_spare: rows there are for all. worth: what pacing.begin() gave. barred: sequences that have none now.
            of_next: in the step behind this one, which has none; as far as that is known now.
        """
        self._num_plans += 1
        number = self._num_plans + of_next
        self.is_usual = worth < 1.0 or self._num_plans % USUAL_EVERY == 0
        self.is_trial = self.is_pause = False
        if worth >= 1.0:
            return {}
        every = TRIAL_EVERY if number < NUM_FIRST else LATER_TRIAL_EVERY
        is_trial = number % every == 0
        if number % every == every // 2:
            self.is_pause = True
            return {}
        offers: list[tuple[float, int, int]] = []
        patience = PATIENCE_OF_HEADS if self._is_head else PATIENCE
        for place, seq in enumerate(scheduled):
            if seq.seq_id in barred or not self._guesses.can_guess(seq):
                continue
            num_missing = self._guesses.num_missing(seq)
            if num_missing > patience * len(seq.output_token_ids):
                continue
            has_seen_all = num_missing <= 1 + self._num_most
            may_try = is_trial and (has_seen_all or number % CATCH_UP_TRIAL_EVERY == 0)
            acceptance, probability = self._acceptance(seq), 1.0
            longest = min(seq.max_len - 1, self._max_positions)
            for num in range(1, 1 + min(self._num_most, longest - seq.num_tokens)):
                probability *= acceptance.rate(num - 1)
                if probability <= worth and not (may_try and num == 1):
                    break
                offers.append((-probability, num, place))
                self.is_usual &= has_seen_all or of_next
        offers.sort()
        nums: dict[int, int] = {}
        for less, num, place in offers[:num_spare]:
            if pacing.take(-less):
                nums[place] = num
            elif is_trial and num == 1:
                nums[place] = num
                self.is_trial = True
        self.is_usual &= bool(nums) or self._num_plans % USUAL_EVERY == 0
        return nums

    def make(self, wanted: list[tuple[Sequence, int]]) -> list[list[int]]:
        """Drafts of sequences, as many as nums() said or fewer, up to an end."""
        made = [_up_to_end(drafts, seq) for (seq, _), drafts in zip(wanted, self._guesses.guess(wanted), strict=True)]
        for (seq, _), drafts in zip(wanted, made, strict=True):
            if drafts:
                self._acceptance(seq).note(drafts, 0, len(seq.output_token_ids))
        return made

    def _acceptance(self, seq: Sequence) -> Acceptance:
        found = self._acceptances.get(seq.seq_id)
        if found is None:
            found = self._acceptances[seq.seq_id] = Acceptance(self._experience)
        found.judge(seq.output_token_ids)
        return found

    def left(self, seq: Sequence) -> None:
        """It gives its blocks up."""
        self._guesses.left(seq)

    def forget(self, seq: Sequence) -> None:
        """It is finished."""
        self._guesses.forget(seq)
        self._acceptances.pop(seq.seq_id, None)


def _up_to_end(drafts: list[int], seq: Sequence) -> list[int]:
    """Nothing follows an end; that it comes is seen in the row before it."""
    ends = (place for place, token_id in enumerate(drafts) if token_id in seq.stop_ids)
    return drafts[: next(ends, len(drafts))]
