"""Drafts priced by hand: tokens a step, where they begin to pay, and what is computed again."""

from __future__ import annotations

from typing import Any

import pytest

from albireo.bench.cost_model import MODEL_ERROR, CostModel
from albireo.bench.draft_speed import RATES, Batch, DraftCosts, DraftTimes, draft_speed, tokens_per_step
from albireo.bench.roofline import Limits, StepShape
from albireo.engine.drafting import GUESS_S, STEP_S
from albireo.engine.model_drafts import LATER_TRIAL_EVERY
from albireo.speculative.pacing import SLACK

LIMITS = Limits(100.0, 1000.0)
ONE, FOUR = Batch(1, 100, False, 5), Batch(4, 100, False, 5)
BESIDE_ONE = STEP_S + GUESS_S


class HandCosts(CostModel):
    """A step takes a second, and so much a row, on a machine that reads 100 bytes a second; nothing outside of it."""

    def __init__(self, step: float = 1.0, row: float = 0.1, draw: float = 0.0, state: float = 0.0) -> None:
        self.step, self.row, self.draw, self.state = step, row, draw, state
        self.shapes: list[StepShape] = []

    def parts(self, shape: StepShape, limits: Limits) -> dict[str, float]:
        self.shapes.append(shape)
        seconds = (self.step + self.row * shape.num_tokens) * 100.0 / limits.read_bytes_per_s
        return {"linear": seconds, "sampling": shape.num_logit_rows * self.draw}

    def outside_s(self, shape: StepShape) -> float:
        return 0.0

    @property
    def draw_s(self) -> float:
        return self.draw

    @property
    def head_s(self) -> float:
        return 0.004

    def state_s(self, limits: Limits) -> float:
        return self.state


def times(batch: Batch = ONE, limits: Limits = LIMITS, **costs: Any) -> DraftTimes:
    return DraftTimes(DraftCosts(**{"model": HandCosts()} | costs), batch, limits)


def test_tokens_a_step_by_hand() -> None:
    assert tokens_per_step(0.5, 2) == pytest.approx(1.75)
    assert tokens_per_step(1.0, 5) == 6
    assert tokens_per_step(0.0, 5) == 1
    assert tokens_per_step(0.9, 0) == 1


def test_lookup_takes_rows_and_next_to_nothing() -> None:
    found = times()
    assert found.plain_s == pytest.approx(1.1)
    tokens, seconds = found.with_drafts(0.5, 2)
    assert (tokens, seconds) == (pytest.approx(1.75), pytest.approx(1.3 + BESIDE_ONE))
    assert found.ratio(0.5, 2) == pytest.approx(1.75 * 1.1 / (1.3 + BESIDE_ONE))


def test_the_steps_that_are_priced() -> None:
    """Rows of drafts are drawn from, and are further positions of their sequences."""
    model = HandCosts()
    DraftTimes(DraftCosts(model), FOUR, LIMITS).step_s(2, 1)
    assert model.shapes[0] == StepShape(4, 0, 4, ((1, 100),) * 4)
    assert model.shapes[1] == StepShape(16, 0, 12, ((4, 102),) * 4, num_drafts=8)
    assert Batch(2, 10, True, 1).shape(2, 1) == StepShape(4, 4, 0, ((2, 11),) * 2, num_drafts=2)


@pytest.mark.parametrize("num_drafts", [1, 3, 5])
@pytest.mark.parametrize("reads", ["", "states", "cache"])
def test_it_pays_from_where_steps_and_guesses_are_worth_their_tokens(reads: Any, num_drafts: int) -> None:
    """There, a step with drafts and its guesses takes as long as the steps that its tokens would take."""
    found = times(guessing=HandCosts(0.05, 0.01), reads=reads)
    rate = found.pays_from([num_drafts])
    assert rate is not None and 0 < rate < 1
    tokens, seconds = found.with_drafts(rate, num_drafts)
    assert seconds == pytest.approx(tokens * found.plain_s, rel=1e-3)
    assert found.ratio(rate - 0.01, num_drafts) < 1 < found.ratio(rate + 0.01, num_drafts)


def test_where_it_pays_by_hand() -> None:
    """One draft by lookup: 1 + p tokens in 1.2 s beside 1.1 s for one."""
    assert times().pays_from([1]) == pytest.approx((1.2 + BESIDE_ONE) / 1.1 - 1, abs=1e-4)
    # the number that pays first is what counts
    assert times().pays_from([1, 2, 3]) == times().pays_from([1])
    assert times().pays_from([3]) > times().pays_from([1])
    # a row that costs a step never pays, a row that is free always does but for guessing
    assert times(model=HandCosts(0.0, 1.0)).pays_from([1, 2]) is None
    assert times(model=HandCosts(1.0, 0.0)).pays_from([1]) == pytest.approx(BESIDE_ONE, abs=1e-4)
    assert times().pays_from([]) is None


def test_faster_the_more_come_true() -> None:
    for reads in ("", "states", "cache"):
        found = times(guessing=HandCosts(0.05, 0.01), reads=reads)
        for number in (1, 2, 5):
            ratios = [found.ratio(rate / 10, number) for rate in range(11)]
            assert ratios == sorted(ratios) and ratios[0] < 1 < ratios[-1]
    found = times(guessing=HandCosts(0.05, 0.01), reads="states")
    best = [found.best(rate) for rate in (0.0, 0.5, 0.95, 1.0)]
    assert best == sorted(best) and (best[0], best[-1]) == (0, 5)


def test_as_many_drafts_as_the_engine_would_have() -> None:
    """A row costs a tenth of a second beside 1.1 s of a token: a first draft must come true in 1.2 * 0.1 / 1.1 of
    cases; at 0.1 / 1.1 it would bring what it takes."""
    border = SLACK * (0.1 + BESIDE_ONE) / 1.1
    assert [times().best(border + each) for each in (-0.001, 0.001)] == [0, 1]
    # a second one comes true with rate * rate, in a step of 1 + rate tokens: 1.2 r^2 = 1.2 * 0.1 (1 + r)
    border = (0.1 + (0.01 + 0.4) ** 0.5) / 2
    assert [times().best(border + each) for each in (-0.001, 0.001)] == [1, 2]


def test_guesses_are_steps_of_what_makes_them() -> None:
    """A draft model has not read its last draft, a head reads again what was guessed, an assistant goes on."""
    expected = {"": (1, 1, 2), "states": (1, 2, 3), "cache": (1, 1, 1)}
    for reads, rows in expected.items():
        guessing = HandCosts(0.05, 0.01)
        found = times(guessing=guessing, reads=reads)
        assert [found._num_new(accepted, 2) for accepted in (0, 1, 2)] == list(rows)
        around = 0.004 if reads else 0.0
        assert found.guess_s(3, 2) == pytest.approx(0.07 + 2 * 0.06 + 3 * around + BESIDE_ONE)
        # nothing comes true: every step is the first's, one in so many has no drafts
        _, seconds = found.with_drafts(0.0, 2)
        without = 1 / LATER_TRIAL_EVERY
        assert seconds == pytest.approx((1.3 + 0.12 + 2 * around + BESIDE_ONE) * (1 - without) + 1.1 * without)


def test_states_go_back_and_compute_again() -> None:
    """One of two came true: the next step has its row once more. None, or both: nothing to compute again."""
    found = times(model=HandCosts(state=0.02), keeps_states=True)
    assert found.plain_s == pytest.approx(1.1)
    for rate, again in ((0.0, 0.0), (1.0, 0.0), (0.5, 0.25)):
        _, seconds = found.with_drafts(rate, 2)
        assert seconds == pytest.approx(1.3 + 0.02 + again * 0.1 + BESIDE_ONE)


def test_nothing_is_drawn_behind_a_wrong_draft() -> None:
    drawn = Batch(2, 100, True, 5)
    found = times(drawn, model=HandCosts(draw=0.5))
    assert found.plain_s == pytest.approx(1.2 + 2 * 0.5)
    tokens, seconds = found.with_drafts(0.5, 2)
    assert seconds == pytest.approx(1.6 + 2 * tokens * 0.5 + STEP_S + 2 * GUESS_S)


def test_what_joins_hidden_states_is_in_every_step() -> None:
    joining = HandCosts(0.001, 0.01, draw=9.0)
    found = times(Batch(1, 100, True, 5), combining=joining)
    assert found.plain_s == pytest.approx(1.1 + 0.011)
    assert found.step_s(2) == pytest.approx(1.3 + 0.031)
    assert {(shape.num_tokens, shape.num_logit_rows) for shape in joining.shapes} == {(1, 1), (3, 3)}


def test_figures_of_a_batch() -> None:
    """Bars hold the spread of the limits and the model's error; where nothing pays it is as without."""
    limits = [Limits(80.0, 1.0), Limits(100.0, 1.0), Limits(120.0, 1.0)]
    found = draft_speed(DraftCosts(HandCosts()), ONE, limits)
    assert [each.num_drafts for each in found.by_number] == [1, 2, 3, 4, 5]
    assert found.by_number[1].step_s == pytest.approx(1.3)
    pays = found.pays_from
    assert pays.low is not None and pays.expected is not None and pays.high is not None
    assert pays.low <= pays.expected < pays.high
    assert [each.rate for each in found.rates] == list(RATES)
    ratios = [each.ratio for each in found.rates]
    assert ratios[0].expected < ratios[1].expected < ratios[2].expected
    for each in found.rates:
        assert each.ratio.low < each.ratio.expected < each.ratio.high
        assert each.decode_tokens_per_s.expected == pytest.approx(each.tokens_per_step / each.decode_step_s.expected)
        assert each.decode_step_s.high == pytest.approx(
            (each.decode_step_s.expected - BESIDE_ONE) * 100 / 80 * (1 + MODEL_ERROR), rel=1e-3
        )
    never = draft_speed(DraftCosts(HandCosts(0.0, 1.0)), FOUR, limits)
    assert (never.pays_from.expected, never.pays_from.high) == (None, None)
    for each in never.rates:
        assert (each.num_drafts, each.tokens_per_step, each.ratio.expected) == (0, 1.0, 1.0)
        assert each.decode_tokens_per_s.expected == pytest.approx(4 / never.plain_s)
