"""How many drafts are worth their rows: what one more row costs is measured, what it brings is its acceptance rate.

Used by engine/drafting.py. Times come from the engine's own steps; nothing is assumed of the device but that a row is
never free.

A step of n rows takes about seconds(n). Near where the engine runs that is a line, whose slope is the cost of one more
row: small while a step waits for the weights, all of a row's share once it computes. A draft brings a token with
probability p. It is worth its row while p is more than what the step's other tokens pay for as much time:

    p > SLACK * slope / (seconds / tokens)

So speculation fades as the batch grows, and never makes a step worse than its tokens are worth.
"""

from __future__ import annotations

#: Steps that count: each one before weighs so much less.
_DECAY = 0.98
#: A row's cost as a fraction of a step's, where nothing was measured, and the least it may be.
_FIRST_COST, _LEAST_COST = 0.02, 0.002
#: Seconds that a draft costs the engine beside the step, which is what is measured.
_BESIDE_S = 1e-5
#: What the first cost weighs, as rows squared of measurements.
_FIRST_WEIGHT = 4.0
#: Near the border drafts bring nothing, and what is measured is not exact.
SLACK = 1.2
#: A step that took so many times what was expected was held up, and counts as this.
_MOST_EXPECTED = 4.0
#: No step takes less.
_SHORTEST_S = 1e-9


class Pacing:
    """A line through the latest steps: their seconds by their rows. begin(), then take() for each draft.

    Attributes: slope: seconds that one more row costs.
    """

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = self._rows_rows = self._rows_seconds = 0.0
        self.slope = _FIRST_COST
        self._start = 1.0
        self._least = 0.0
        self._step_tokens = self._step_seconds = 0.0

    def observe(self, num_rows: int, seconds: float) -> None:
        """A step of so many rows took so long."""
        seconds = max(seconds, _SHORTEST_S)
        if self._weight:
            seconds = min(seconds, _MOST_EXPECTED * self.expected(num_rows))
        self._weight = weight = self._weight * _DECAY + 1.0
        self._rows = self._rows * _DECAY + num_rows
        self._seconds = self._seconds * _DECAY + seconds
        self._rows_rows = self._rows_rows * _DECAY + num_rows * num_rows
        self._rows_seconds = self._rows_seconds * _DECAY + num_rows * seconds
        rows, mean = self._rows / weight, self._seconds / weight
        spread = max(self._rows_rows - self._rows * rows, 0.0)
        product = self._rows_seconds - self._rows * mean
        first = _FIRST_COST * mean / (1.0 + _FIRST_COST * rows)
        slope = max((product + _FIRST_WEIGHT * first) / (spread + _FIRST_WEIGHT), _LEAST_COST * mean)
        self.slope = slope + _BESIDE_S
        self._start = mean - slope * rows
        self._least = 0.1 * mean

    def expected(self, num_rows: int) -> float:
        """Seconds of a step; as long as none was seen, a second and more."""
        return max(self._start + (self.slope - _BESIDE_S) * num_rows, self._least)

    def begin(self, num_rows: int) -> float:
        """A step of so many rows, each for a token, is to be extended. Returns: the probability that is worth a row."""
        self._step_tokens, self._step_seconds = float(num_rows), self.expected(num_rows)
        return SLACK * self.slope * self._step_tokens / self._step_seconds

    def take(self, probability: float) -> bool:
        """Whether a draft is worth a row of the step; then it has one."""
        if probability * self._step_seconds <= SLACK * self.slope * self._step_tokens:
            return False
        self._step_tokens += probability
        self._step_seconds += self.slope
        return True
