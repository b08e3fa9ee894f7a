"""How many drafts are worth their rows: what one more row costs is measured, what it brings is its acceptance rate.

Used by engine/drafting.py. Times come from the engine's own steps; nothing is assumed of the device but that a row is
never free.

A step of n rows takes about seconds(n). Near where the engine runs that is a line, whose slope is the cost of one more
row: small while a step waits for the weights, all of a row's share once it computes. A draft brings a token with
probability p. It is worth its row while p is more than what the step's other tokens pay for as much time:

    p > SLACK * slope / (seconds / tokens)

So speculation fades as the batch grows, and never makes a step worse than its tokens are worth.

A device that begins the next step while this one is reported cannot begin one with drafts: these need the tokens. Then
a step has waited, and takes longer by a gap: what the host does between two steps. That is measured too, as the
distance of two lines of one slope. Drafts of such a device must pay for the gap, all of a step together.
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
#: The gap as a fraction of a step where none was measured: short, so that it is measured; and what that weighs, in
#: steps: a gap that was too long is looked at again some hundred steps later.
_FIRST_GAP, _FIRST_GAP_WEIGHT = 0.02, 0.1
#: Near the border drafts bring nothing, and what is measured is not exact.
SLACK = 1.2
#: A step that took so many times what was expected was held up, and counts as this.
_MOST_EXPECTED = 4.0
#: No step takes less.
_SHORTEST_S = 1e-9
#: Steps that weigh less than this are forgotten.
_FORGOTTEN = 1e-9


class _Steps:
    """Sums over steps of one kind, the latest weighing most."""

    def __init__(self) -> None:
        self.weight = self.rows = self.seconds = self.rows_rows = self.rows_seconds = 0.0

    def fade(self) -> None:
        decay = _DECAY if self.weight > _FORGOTTEN else 0.0
        self.weight *= decay
        self.rows *= decay
        self.seconds *= decay
        self.rows_rows *= decay
        self.rows_seconds *= decay

    def add(self, rows: float, seconds: float) -> None:
        self.weight += 1.0
        self.rows += rows
        self.seconds += seconds
        self.rows_rows += rows * rows
        self.rows_seconds += rows * seconds

    def spread(self) -> tuple[float, float]:
        """About their mean: rows by rows, and rows by seconds."""
        if not self.weight:
            return 0.0, 0.0
        rows = self.rows / self.weight
        return max(self.rows_rows - self.rows * rows, 0.0), self.rows_seconds - self.seconds * rows

    def start(self, slope: float) -> float:
        """Where a line through their mean begins."""
        return (self.seconds - slope * self.rows) / self.weight


class Pacing:
    """Lines through the latest steps: their seconds by their rows. begin(), take() for each draft, pays().

    Attributes: slope: seconds that one more row costs. gap: seconds that a step takes longer when it has waited.
    """

    def __init__(self) -> None:
        self._plain, self._waited = _Steps(), _Steps()
        self.slope, self.gap = _FIRST_COST, _FIRST_GAP
        self._start = 1.0
        self._least = 0.0
        self._num_rows = 0
        self._step_tokens = self._step_seconds = 0.0

    def observe(self, num_rows: int, seconds: float, *, has_waited: bool = False) -> None:
        """A step of so many rows took so long. has_waited: it could have been begun earlier, and was not."""
        plain, waited = self._plain, self._waited
        seconds = max(seconds, _SHORTEST_S)
        if plain.weight or waited.weight:
            seconds = min(seconds, _MOST_EXPECTED * (self.expected(num_rows) + has_waited * self.gap))
        plain.fade()
        waited.fade()
        (waited if has_waited else plain).add(num_rows, seconds)
        weight = plain.weight + waited.weight
        mean, rows = (plain.seconds + waited.seconds) / weight, (plain.rows + waited.rows) / weight
        spreads = (plain.spread(), waited.spread())
        first = _FIRST_COST * mean / (1.0 + _FIRST_COST * rows)
        product = sum(each[1] for each in spreads) + _FIRST_WEIGHT * first
        slope = max(product / (sum(each[0] for each in spreads) + _FIRST_WEIGHT), _LEAST_COST * mean)
        self.slope = slope + _BESIDE_S
        gap = _FIRST_GAP * mean
        if plain.weight and waited.weight:
            measured = waited.start(slope) - plain.start(slope)
            gap = (waited.weight * measured + _FIRST_GAP_WEIGHT * gap) / (waited.weight + _FIRST_GAP_WEIGHT)
        self.gap = max(gap, 0.0)
        self._start = plain.start(slope) if plain.weight else waited.start(slope) - self.gap
        self._least = 0.1 * mean

    def expected(self, num_rows: int) -> float:
        """Seconds of a step that did not wait; as long as none was seen, a second and more."""
        return max(self._start + (self.slope - _BESIDE_S) * num_rows, self._least)

    def begin(self, num_rows: int) -> float:
        """A step of so many rows, each for a token, is to be extended. Returns: the probability that is worth a row."""
        self._num_rows = num_rows
        self._step_tokens, self._step_seconds = float(num_rows), self.expected(num_rows)
        return SLACK * self.slope * self._step_tokens / self._step_seconds

    def take(self, probability: float) -> bool:
        """Whether a draft is worth a row of the step; then it has one."""
        if probability * self._step_seconds <= SLACK * self.slope * self._step_tokens:
            return False
        self._step_tokens += probability
        self._step_seconds += self.slope
        return True

    def pays(self, num_gaps: int) -> bool:
        """Whether all that was taken since begin() is worth so many gaps beside its rows."""
        plain = self.expected(self._num_rows)
        cost = self._step_seconds - plain + num_gaps * self.gap
        return (self._step_tokens - self._num_rows) * plain > SLACK * cost * self._num_rows
