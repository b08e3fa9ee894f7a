"""What speculative decoding will be worth: a step with drafts, what guesses take, and tokens a step by acceptance rate.

Called by draft_figures.py. Prices come from the cost model on the programs that are loaded; how often drafts come true
depends on a text that nobody has yet, so it is said for some acceptance rates, and from which on there is a gain. A
rate is of drafts whose predecessors came true. Does not know how drafts are made, nor clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from albireo.bench.cost_model import MODEL_ERROR, CostModel
from albireo.bench.predict import Estimate, cases_of
from albireo.bench.roofline import Limits, StepShape
from albireo.engine.drafting import GUESS_S, STEP_S
from albireo.engine.model_drafts import LATER_TRIAL_EVERY
from albireo.speculative.pacing import SLACK

#: Acceptance rates that are told.
RATES = (0.5, 0.7, 0.9)
#: Halvings of the interval in which the rate lies that drafts pay from: to a ten thousandth.
_HALVINGS = 14


@dataclass(frozen=True, slots=True)
class DraftCosts:
    """What drafts are priced by.

    Fields:
        model: whose drafts they are. guessing: the draft model, or the head; None: lookup, which computes nothing.
        combining: of what a head reads of several layers, in each step of the model.
        reads: as speculative.proposer.Method has it.
        keeps_states: layers of the model do, and go back to before the first wrong draft.
    """

    model: CostModel
    guessing: CostModel | None = None
    combining: CostModel | None = None
    reads: Literal["", "states", "cache"] = ""
    keeps_states: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences that decode side by side.

    Fields:
        length: of each, half way through. has_logits: drawn from full logits; else the likeliest.
        most: drafts of one of them in a step, at most; 0: there are no rows for any.
    """

    num_requests: int
    length: int
    has_logits: bool
    most: int

    def shape(self, rows: int, num_drafts: int = 0) -> StepShape:
        """A step in which each computes so many rows, and is drawn from the last, and from those of its drafts."""
        num, drawn = self.num_requests, self.num_requests * (1 + num_drafts)
        wanted = (drawn, 0) if self.has_logits else (0, drawn)
        sequences = ((rows, self.length + num_drafts),) * num
        return StepShape(num * rows, *wanted, sequences, num_drafts=num * num_drafts)


@dataclass(frozen=True, slots=True)
class AtRate:
    """Decoding at one acceptance rate, with as many drafts as the engine has there; 0: none is worth it.

    Fields: decode_step_s: guesses included. ratio: how many times as fast as without drafts.
    """

    rate: float
    num_drafts: int
    tokens_per_step: float
    decode_step_s: Estimate
    decode_tokens_per_s: Estimate
    ratio: Estimate


@dataclass(frozen=True, slots=True)
class ByNumber:
    """Seconds of a step with so many drafts of each sequence, and of guessing them; and what they pay from alone."""

    num_drafts: int
    step_s: float
    guess_s: float
    pays_from: float | None


@dataclass(frozen=True, slots=True)
class PaysFrom:
    """The acceptance rate from which on drafts bring more than they take, the best number of them; None: never.

    Fields: low, high: where steps with drafts take less, or more, by the error bars.
    """

    expected: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class DraftSpeed:
    """Of one batch. Fields: plain_s: a step without drafts. by_number: of 1 draft and more."""

    num_requests: int
    plain_s: float
    by_number: list[ByNumber]
    pays_from: PaysFrom
    rates: list[AtRate]


def tokens_per_step(rate: float, num_drafts: int) -> float:
    """Expected of a sequence: the drafts before the first wrong one, and the token that is drawn behind them."""
    return sum(rate**place for place in range(num_drafts + 1))


class DraftTimes:
    """Seconds of steps of one batch at one set of limits."""

    def __init__(self, costs: DraftCosts, batch: Batch, limits: Limits) -> None:
        self._costs, self.batch, self._limits = costs, batch, limits
        self.plain_s = self.step_s(0)
        self._step_s: Callable[[int, int], float] = cache(self.step_s)
        self._guess_s: Callable[[int, int], float] = cache(self.guess_s)

    def step_s(self, num_drafts: int, num_again: int = 0) -> float:
        """A step of the model, in which one token of each sequence is drawn.

        Args: num_again: rows of each that a state has not seen, of drafts that came true before.
        """
        costs, batch, limits = self._costs, self.batch, self._limits
        rows = 1 + num_drafts + num_again
        shape = batch.shape(rows, num_drafts)
        found = costs.model.step_s(shape, limits) + costs.model.outside_s(shape)
        # behind a draft that is wrong nothing is drawn
        found -= batch.num_requests * num_drafts * self._draw_s
        if costs.combining is not None:
            found += _calls_s(costs.combining, batch.num_requests * rows, limits)
        if num_drafts and costs.keeps_states:
            found += batch.num_requests * costs.model.state_s(limits)
        return found

    def guess_s(self, num_drafts: int, num_new: int = 1) -> float:
        """Guessing so many drafts of each sequence. Args: num_new: tokens of each that guesses have not seen."""
        guessing, batch = self._costs.guessing, self.batch
        beside = STEP_S + GUESS_S * batch.num_requests
        if guessing is None:
            return beside
        around = guessing.head_s if self._costs.reads else 0.0
        first, further = (guessing.step_s(batch.shape(rows), self._limits) + around for rows in (num_new, 1))
        return beside + first + (num_drafts - 1) * further

    def with_drafts(self, rate: float, num_drafts: int) -> tuple[float, float]:
        """Expected tokens of a sequence a step, and seconds of one with its guesses.

        One step in LATER_TRIAL_EVERY has none, where guesses are computed.
        """
        tokens, seconds = self._drafted(rate, num_drafts)
        if self._costs.guessing is None:
            return tokens, seconds
        without = 1 / LATER_TRIAL_EVERY
        return tokens * (1 - without) + without, seconds * (1 - without) + self.plain_s * without

    def _drafted(self, rate: float, num_drafts: int) -> tuple[float, float]:
        """Of steps with drafts. What the step before accepted says how much is computed again: by the model, where
        states went back, and by what guesses."""
        tokens, seconds = tokens_per_step(rate, num_drafts), 0.0
        for accepted in range(num_drafts + 1):
            share = rate**accepted * (1 - rate if accepted < num_drafts else 1)
            is_back = self._costs.keeps_states and accepted < num_drafts
            step = self._step_s(num_drafts, accepted if is_back else 0)
            seconds += share * (step + self._guess_s(num_drafts, self._num_new(accepted, num_drafts)))
        return tokens, seconds + self.batch.num_requests * (tokens - 1) * self._draw_s

    def ratio(self, rate: float, num_drafts: int, slower: float = 1.0) -> float:
        """How many times as fast as without drafts. Args: slower: steps with drafts take so many times as long."""
        tokens, seconds = self.with_drafts(rate, num_drafts)
        return tokens * self.plain_s / (seconds * slower)

    def best(self, rate: float) -> int:
        """How many drafts the engine has: each brings SLACK times what it takes, see speculative/pacing.py."""
        found, tokens, seconds = 0, 1.0, self.plain_s
        for number in range(1, self.batch.most + 1):
            more_tokens, more_seconds = self._drafted(rate, number)
            if (more_tokens - tokens) * seconds <= SLACK * (more_seconds - seconds) * tokens:
                break
            found, tokens, seconds = number, more_tokens, more_seconds
        return found

    def pays_from(self, numbers: Sequence[int], slower: float = 1.0) -> float | None:
        """The least rate at which one of these numbers of drafts is no slower than none."""

        def pays(rate: float) -> bool:
            return any(self.ratio(rate, number, slower) >= 1 for number in numbers)

        low, high = 0.0, 1.0
        if not pays(high):
            return None
        if pays(low):
            return low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if pays(middle) else (middle, high)
        return high

    @property
    def _draw_s(self) -> float:
        return self._costs.model.draw_s if self.batch.has_logits else 0.0

    def _num_new(self, accepted: int, num_drafts: int) -> int:
        """Rows of the first guess: a head computes again what was guessed, a draft model has not read its last draft,
        and what reads the model's cache goes on from one row."""
        if self._costs.reads == "states":
            return accepted + 1
        return 2 if self._costs.reads == "" and accepted == num_drafts else 1


def draft_speed(costs: DraftCosts, batch: Batch, limits: Sequence[Limits]) -> DraftSpeed:
    """Price drafts of a batch. Args: limits: several measurements, whose spread is in the error bars."""
    cases = [DraftTimes(costs, batch, held) for held in cases_of(limits)]
    times = cases[0]
    numbers = range(1, batch.most + 1)
    low, high = 1 - MODEL_ERROR, 1 + MODEL_ERROR
    return DraftSpeed(
        num_requests=batch.num_requests,
        plain_s=times.plain_s,
        by_number=[
            ByNumber(number, times.step_s(number), times.guess_s(number), times.pays_from([number]))
            for number in numbers
        ],
        pays_from=PaysFrom(
            times.pays_from(numbers),
            _least([each.pays_from(numbers, low) for each in cases]),
            _most([each.pays_from(numbers, high) for each in cases]),
        ),
        rates=[_at(rate, cases, (low, high)) for rate in RATES],
    )


def _at(rate: float, cases: Sequence[DraftTimes], slower: tuple[float, float]) -> AtRate:
    number = cases[0].best(rate)
    found = [each.with_drafts(rate, number) if number else (1.0, each.plain_s) for each in cases]
    tokens = found[0][0]
    step_s = Estimate.of(*(seconds for _, seconds in found))
    ratio = Estimate(1.0, 1.0, 1.0)
    if number:
        ratios = [[each.ratio(rate, number, by) for each in cases] for by in (1.0, *slower)]
        ratio = Estimate(ratios[0][0], min(ratios[2]), max(ratios[1]))
    return AtRate(rate, number, tokens, step_s, step_s.rate(cases[0].batch.num_requests * tokens), ratio)


def _calls_s(costs: CostModel, rows: int, limits: Limits) -> float:
    """Of a program that gives all of its rows, and is not drawn from."""
    shape = StepShape(rows, rows, 0, ((rows, rows),))
    return sum(seconds for name, seconds in costs.parts(shape, limits).items() if name != "sampling")


def _least(found: Sequence[float | None]) -> float | None:
    return min((each for each in found if each is not None), default=None)


def _most(found: Sequence[float | None]) -> float | None:
    """None, where one of them is: it may be that none pays."""
    known = [each for each in found if each is not None]
    return max(known) if len(known) == len(found) else None
