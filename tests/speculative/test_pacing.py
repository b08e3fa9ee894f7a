"""Pacing: drafts while a row costs less than it brings; measured, and measured again when nothing is known any more."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from albireo.speculative.pacing import Pacing


def memory_bound(rows: float) -> float:
    return 0.010 + 0.0001 * rows


def compute_bound(rows: float) -> float:
    return 0.0005 * rows


def watched(seconds: Callable[[float], float], sizes: list[int]) -> Pacing:
    pacing = Pacing()
    for size in sizes:
        pacing.observe(size, seconds(size))
    return pacing


def num_taken(pacing: Pacing, num_rows: int, probability: float, num_wanted: int = 8) -> int:
    """Drafts of one rate, all as likely, that are taken."""
    pacing.begin(num_rows)
    return sum(pacing.take(probability) for _ in range(num_wanted))


def test_it_finds_the_line_of_its_steps() -> None:
    pacing = watched(memory_bound, [1, 6, 1, 4, 1, 6, 3] * 20)
    assert pacing.slope == pytest.approx(0.0001 + 0.00001, rel=0.05), "and what a draft costs beside a step"
    assert pacing.expected(5) == pytest.approx(memory_bound(5), rel=0.01)


def test_rows_that_cost_nothing_beside_the_weights_are_taken() -> None:
    pacing = watched(memory_bound, [1, 6] * 50)
    assert num_taken(pacing, 1, 0.5) == 8
    assert num_taken(pacing, 1, 0.01) == 0


def test_rows_that_cost_as_much_as_others_are_left() -> None:
    pacing = watched(compute_bound, [64, 70, 64, 80] * 20)
    assert pacing.begin(64) > 1.0
    assert num_taken(pacing, 64, 0.99) == 0


def test_the_more_run_the_likelier_a_draft_must_be() -> None:
    pacing = watched(memory_bound, [1, 16, 64] * 30)
    worth = [pacing.begin(rows) for rows in (1, 8, 32, 128)]
    assert worth == sorted(worth) and worth[0] < 0.02


def test_each_draft_taken_makes_the_next_one_harder() -> None:
    pacing = watched(lambda rows: 0.010 + 0.001 * rows, [1, 3, 6] * 30)
    # 0.3 (11 + n) > SLACK (1 + 0.3 n), in milliseconds
    assert 30 <= num_taken(pacing, 1, 0.3, 100) <= 40


def test_where_nothing_was_measured_likely_drafts_are_tried() -> None:
    assert num_taken(Pacing(), 1, 0.5) == 8
    assert num_taken(watched(compute_bound, [16] * 100), 16, 0.9) > 0, "a line needs steps of several sizes"


def test_one_step_that_was_too_large_is_enough() -> None:
    pacing = watched(compute_bound, [48] * 100)
    pacing.observe(64, compute_bound(64))
    assert num_taken(pacing, 48, 0.95) == 0


def test_what_was_measured_is_forgotten() -> None:
    pacing = watched(compute_bound, [48, 64])
    for _ in range(2000):
        pacing.observe(48, memory_bound(48))
    assert num_taken(pacing, 48, 0.95) > 0


def test_a_step_that_was_held_up_does_not_end_it() -> None:
    chance = random.Random(3)
    pacing = Pacing()
    for _ in range(300):
        rows = chance.choice([1, 3, 6])
        pacing.observe(rows, memory_bound(rows) * chance.uniform(0.9, 1.1))
    pacing.observe(6, 5.0)
    assert num_taken(pacing, 1, 0.9) > 0


def test_a_clock_that_stands_still_divides_nothing_by_zero() -> None:
    pacing = watched(lambda rows: 0.0, [1, 6, 1])
    assert num_taken(pacing, 1, 0.5) == 0


def test_steps_that_take_no_longer_than_a_draft_beside_them_have_none() -> None:
    assert num_taken(watched(lambda rows: 1e-5, [1, 6, 1] * 30), 1, 0.9) == 0


def waited(gap: float, sizes: list[int]) -> Pacing:
    """Steps of one row that are begun ahead, and some of several rows that waited."""
    pacing = Pacing()
    for size in sizes:
        pacing.observe(size, memory_bound(size) + (size > 1) * gap, has_waited=size > 1)
    return pacing


def test_it_finds_what_waiting_costs_apart_from_what_rows_cost() -> None:
    pacing = waited(0.002, [1, 1, 6, 3, 6, 2, 1] * 20)
    assert pacing.gap == pytest.approx(0.002, rel=0.05)
    assert pacing.slope == pytest.approx(0.0001 + 0.00001, rel=0.05)
    assert pacing.expected(1) == pytest.approx(memory_bound(1), rel=0.01), "a step that was begun ahead"


def test_drafts_of_a_step_pay_for_the_wait_together() -> None:
    pacing = waited(0.005, [1, 1, 6, 3, 6, 2, 1] * 20)
    for wanted, probability, num_gaps in ((True, 0.95, 1), (True, 0.95, 2), (False, 0.5, 2), (False, 0.3, 1)):
        pacing.begin(1)
        num = sum([pacing.take(probability**place) for place in range(1, 5)])
        assert num >= 3 and pacing.pays(num_gaps) == wanted, (probability, num_gaps)
    pacing.begin(1)
    assert not pacing.pays(1), "nothing is worth no wait"


def test_a_wait_is_tried_where_none_was_measured_and_again_much_later() -> None:
    def is_tried(pacing: Pacing) -> bool:
        pacing.begin(1)
        return pacing.take(0.4) and pacing.pays(2)

    assert is_tried(watched(memory_bound, [1] * 50))
    pacing = watched(memory_bound, [1] * 50)
    pacing.observe(2, 3 * memory_bound(2), has_waited=True)
    assert not is_tried(pacing)
    num_steps = 0
    while not is_tried(pacing) and num_steps < 2000:
        pacing.observe(1, memory_bound(1))
        num_steps += 1
    assert 50 < num_steps < 500


def test_steps_of_one_kind_for_very_long_are_enough() -> None:
    """What is known of the others fades until nothing is left to divide by."""
    for has_waited in (False, True):
        pacing = waited(0.002, [1, 6, 3] * 10)
        for _ in range(3000):
            pacing.observe(4, memory_bound(4) + has_waited * 0.002, has_waited=has_waited)
        assert 0.0 <= pacing.gap < 0.003 and pacing.expected(4) == pytest.approx(memory_bound(4), rel=0.25)
