"""How often the guesses of a sequence come true, by kind; learnt from all of them, whether they were computed or not.

Kept by engine/drafting.py. A guess that was not computed is judged all the same, by the token that came: so a sequence
whose drafts are not worth their rows costs none, and it is seen at once when that changes.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Of a kind that nothing is known of.
FIRST_RATE = 0.5
#: What one judgement weighs against all before it: of a sequence, and of all sequences together.
_OWN_WEIGHT, _SHARED_WEIGHT = 0.125, 0.03125


class Experience:
    """Of all sequences: what a new one begins with. rates: of each kind, the fraction that came true.

    Args: is_by_place: each further draft of a guess is of the next kind, since it is guessed from those before it. As
        long as none has been judged it is taken to be as the kind before.
    """

    def __init__(self, num_kinds: int, *, is_by_place: bool = False) -> None:
        self.rates = [FIRST_RATE] * num_kinds
        self.is_by_place = is_by_place
        #: The kinds from here on were never judged, where kinds are places.
        self.num_seen = 1 if is_by_place else num_kinds


class Acceptance:
    """Of one sequence. rates: as Experience has them."""

    def __init__(self, shared: Experience) -> None:
        self.rates = shared.rates.copy()
        self._shared = shared
        self._num_seen = shared.num_seen
        self._guess: Sequence[int] = ()
        self._kind = self._num_before = 0

    def rate(self, kind: int) -> float:
        """The acceptance rate to be expected of the next draft of this kind, when those before it came true."""
        return self.rates[min(kind, self._num_seen - 1)]

    def note(self, guess: Sequence[int], kind: int, num_tokens: int) -> None:
        """A guess of what follows the first num_tokens tokens of the output. Args: kind: of its first draft."""
        self._guess, self._kind, self._num_before = guess, kind, num_tokens

    def judge(self, output_token_ids: Sequence[int]) -> None:
        """See what became of the guess, as far as tokens came; behind the first that was wrong nothing is known."""
        kind = self._kind
        for place, draft in enumerate(self._guess, self._num_before):
            if place >= len(output_token_ids):
                break
            is_true = output_token_ids[place] == draft
            self._learn(kind, is_true)
            if not is_true:
                break
            kind += self._shared.is_by_place
        self._guess = ()

    def _learn(self, kind: int, is_true: bool) -> None:
        shared = self._shared
        if kind >= shared.num_seen:
            shared.rates[kind] = shared.rates[kind - 1]
            shared.num_seen = kind + 1
        if kind >= self._num_seen:
            self.rates[kind] = self.rates[kind - 1]
            self._num_seen = kind + 1
        for rates, weight in ((self.rates, _OWN_WEIGHT), (shared.rates, _SHARED_WEIGHT)):
            rates[kind] += weight * (is_true - rates[kind])
