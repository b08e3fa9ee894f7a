"""Hysteresis and search, on machines that are made up: every time, and every probe, is what the test says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from albireo.graph.tuning import ALLOWED, Tuning
from albireo.tune.search import GLANCES, MARGIN, MAX_REPEATS, ROUNDS, WINS, compare, search

Landscape = Callable[[Tuning], float]


@dataclass
class Machine:
    """cost gives a time; probes are read speeds in turn, the last for ever."""

    cost: Landscape
    probes: list[float] = field(default_factory=lambda: [1.0])
    measured: list[Tuning] = field(default_factory=list)
    glanced: list[Tuning] = field(default_factory=list)

    def seconds(self, choice: Tuning) -> float:
        self.measured.append(choice)
        return self.cost(choice)

    def glance(self, choice: Tuning) -> float:
        self.glanced.append(choice)
        return self.cost(choice)

    def read_speed(self) -> float:
        return self.probes.pop(0) if len(self.probes) > 1 else self.probes[0]


@dataclass
class Space:
    """Every allowed value of the named parameters."""

    names: tuple[str, ...] = tuple(ALLOWED)

    def parameters(self) -> tuple[str, ...]:
        return self.names

    def candidates(self, name: str, current: Tuning) -> Iterator[Tuning]:
        for value in ALLOWED[name]:
            if value != getattr(current, name):
                yield replace(current, **{name: value})


DEFAULT, OTHER = Tuning(), Tuning(claims=16)


def of(default: list[float], other: list[float]) -> Landscape:
    """Times of the two in turn."""
    times = {DEFAULT: iter(default), OTHER: iter(other)}
    return lambda tuning: next(times[tuning])


@pytest.mark.parametrize(
    ("others", "is_won", "rounds"),
    [
        ([0.9] * 5, True, 5),
        ([0.96] * 5, True, 5),
        ([0.98] * 5, False, 2),  # faster, but not by enough
        ([1.2] * 5, False, 2),  # cannot win any more after two
        ([0.9, 0.9, 1.1, 0.9, 0.9], True, 5),
        ([0.9, 1.1, 0.9, 1.1, 0.9], False, 4),
    ],
)
def test_a_change_must_be_clear(others: list[float], is_won: bool, rounds: int) -> None:
    result = compare(Machine(of([1.0] * 5, others)), DEFAULT, OTHER)
    assert (result.is_won, result.rounds) == (is_won, rounds)


def test_the_rules_are_those_of_the_documents() -> None:
    assert (MARGIN, WINS, ROUNDS) == (0.03, 4, 5)


def test_who_is_measured_first_changes() -> None:
    machine = Machine(lambda tuning: 0.5 if tuning == OTHER else 1.0)
    compare(machine, DEFAULT, OTHER)
    assert machine.measured[:4] == [DEFAULT, OTHER, OTHER, DEFAULT]


def test_medians_and_spread() -> None:
    result = compare(Machine(of([1.0, 2.0, 3.0, 2.0, 2.0], [0.5, 0.6, 0.7, 0.5, 0.6])), DEFAULT, OTHER)
    assert (result.current_s, result.candidate_s) == (2.0, 0.6)
    assert result.spread == pytest.approx((0.7 - 0.5) / 0.6)


def test_a_disturbed_round_is_measured_again() -> None:
    """The first round looks like a loss because the machine was taken away in it."""
    machine = Machine(of([1.0] * 6, [9.0] + [0.9] * 5), probes=[1.0, 0.3, 0.31, 0.3, 0.3])
    result = compare(machine, DEFAULT, OTHER)
    assert result.is_won
    assert len(machine.measured) == 2 * (ROUNDS + 1)


def test_a_machine_that_is_never_quiet_changes_nothing() -> None:
    machine = Machine(lambda tuning: 0.5 if tuning == OTHER else 1.0, probes=[1.0, 0.5] * 40)
    result = compare(machine, DEFAULT, OTHER)
    assert not result.is_won
    assert len(machine.measured) == 2 * (MAX_REPEATS + result.rounds)


def landscape(best: Tuning, noise: float = 0.0, seed: int = 0) -> Landscape:
    """The further from best, the slower; each parameter by itself."""
    draw = random.Random(seed)

    def cost(tuning: Tuning) -> float:
        away = sum(
            abs(values.index(getattr(tuning, name)) - values.index(getattr(best, name)))
            for name, values in ALLOWED.items()
        )
        return 1.1**away * (1 + noise * draw.uniform(-1, 1))

    return cost


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize(
    "best",
    [
        Tuning(),
        Tuning(tall_rows=0, claims=32),
        Tuning(6, 131072, 4096, 96, 16, 1),
        Tuning(fetch_bytes=4096, block_steps=256, slab_rows=1920),
    ],
)
def test_the_best_of_a_landscape_is_found(best: Tuning, noise: float) -> None:
    outcome = search(Machine(landscape(best, noise)), Space(), lambda: True)
    assert outcome.tuning == best
    if best != Tuning():
        assert outcome.comparison.is_won
        assert outcome.comparison.candidate_s < outcome.comparison.current_s


def test_noise_alone_changes_nothing() -> None:
    for seed in range(20):
        draw = random.Random(seed)
        machine = Machine(lambda tuning, draw=draw: 1 + 0.015 * draw.uniform(-1, 1))  # type: ignore[misc]
        outcome = search(machine, Space(), lambda: True)
        assert outcome.tuning == Tuning()
        assert outcome.comparison.current_s == outcome.comparison.candidate_s > 0


def test_what_does_not_beat_the_defaults_in_the_end_is_not_kept() -> None:
    """It looked good in every glance, and never again."""
    times = {OTHER: iter([0.5] * GLANCES + [1.5] * 99)}
    machine = Machine(lambda tuning: next(times[tuning]) if tuning in times else 1.0)
    outcome = search(machine, Space(("claims",)), lambda: True)
    assert outcome.tuning == Tuning()
    assert outcome.tried == 3


def test_a_search_ends_when_the_time_is_over() -> None:
    machine = Machine(landscape(Tuning(6, 131072, 4096, 96, 16, 1)))
    outcome = search(machine, Space(), lambda: len(machine.glanced) < 4)
    assert outcome.tried <= 3 and not outcome.is_complete
    assert len(machine.glanced) <= 4
    assert outcome.tuning == Tuning()
    assert search(Machine(lambda tuning: 1.0), Space(), lambda: True).is_complete


def test_a_glance_is_enough_for_what_is_no_faster() -> None:
    """One look at each value, and two at the present choice for each parameter."""
    machine = Machine(lambda tuning: 1.0 if tuning == DEFAULT else 1.01)
    outcome = search(machine, Space(), lambda: True)
    values = sum(len(values) - 1 for values in ALLOWED.values())
    assert outcome.tried == values
    assert len(machine.glanced) == values + 2 * len(ALLOWED)
    assert not machine.measured and outcome.comparison.rounds == 2 * len(ALLOWED)


def test_glances_decide_nothing() -> None:
    """A value that looks twice as fast by half of the measurements is held to the rules by the other half."""
    machine = Machine(lambda tuning: 1.0)
    machine.glance = lambda choice: 0.5 if choice == OTHER else 1.0  # type: ignore[method-assign]
    outcome = search(machine, Space(("claims",)), lambda: True)
    assert outcome.tuning == DEFAULT
    assert machine.measured.count(OTHER) == 2


def test_the_worse_half_is_left_out_after_each_glance() -> None:
    cost = {8: 0.8, 16: 0.7, 32: 0.6, 4: 1.0}
    machine = Machine(lambda tuning: cost[tuning.claims])
    outcome = search(machine, Space(("claims",)), lambda: True)
    assert outcome.tuning == Tuning(claims=32)
    looks = [tuning.claims for tuning in machine.glanced]
    assert {value: looks.count(value) for value in cost} == {8: 1, 16: 2, 32: 3, 4: 6}
