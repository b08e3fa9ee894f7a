"""Acceptance: each guess is judged by the tokens that came, as far as they came."""

from __future__ import annotations

import pytest

from albireo.speculative.acceptance import FIRST_RATE, Acceptance, Experience


def judged(guess: list[int], output: list[int], num_before: int = 0) -> float:
    acceptance = Acceptance(Experience(1))
    acceptance.note(guess, 0, num_before)
    acceptance.judge(output)
    return acceptance.rate(0)


def test_a_draft_that_comes_true_raises_the_rate_and_a_wrong_one_lowers_it() -> None:
    assert judged([5], [5]) > FIRST_RATE > judged([5], [6])
    assert judged([5, 6], [5, 6]) > judged([5, 6], [5])
    assert judged([5, 6], [9, 5, 6], num_before=1) == judged([5, 6], [5, 6])


def test_behind_the_first_that_is_wrong_nothing_is_known() -> None:
    assert judged([5, 6, 7], [4, 6, 7]) == judged([5], [4])
    assert judged([5, 6, 7], [5, 9, 7]) == judged([5, 6], [5, 9])


def test_tokens_that_have_not_come_say_nothing() -> None:
    assert judged([5, 6, 7], []) == FIRST_RATE
    assert judged([5, 6, 7], [5]) == judged([5], [5])


def test_a_guess_is_judged_once() -> None:
    acceptance = Acceptance(Experience(1))
    acceptance.note([5, 6], 0, 0)
    acceptance.judge([5])
    rate = acceptance.rate(0)
    acceptance.judge([5, 7])
    assert acceptance.rate(0) == rate


def test_kinds_are_apart_and_a_new_sequence_begins_with_what_others_saw() -> None:
    shared = Experience(2)
    first = Acceptance(shared)
    for end in range(200):
        first.note([1], 0, end)
        first.judge([1] * (end + 1))
        first.note([2], 1, end)
        first.judge([1] * (end + 1))
    assert first.rate(0) == pytest.approx(1.0, abs=1e-6) and first.rate(1) == pytest.approx(0.0, abs=1e-6)
    second = Acceptance(shared)
    assert second.rate(0) > 0.99 and second.rate(1) < 0.01
    second.note([3], 0, 0)
    second.judge([4])
    assert first.rate(0) == pytest.approx(1.0, abs=1e-6), "one sequence's failures are its own"


def test_by_place_each_draft_of_a_guess_is_judged_for_itself() -> None:
    shared = Experience(3, is_by_place=True)
    first = Acceptance(shared)
    for end in range(200):
        first.note([1, 2, 3], 0, end)
        first.judge([1] * end + [1, 2, 4])
    assert min(first.rate(0), first.rate(1)) == pytest.approx(1.0, abs=1e-6)
    assert first.rate(2) == pytest.approx(0.0, abs=1e-6)
    late = Acceptance(shared)
    assert late.rate(0) > 0.99 and late.rate(2) < 0.01


def test_a_place_that_was_never_judged_is_as_the_one_before_it() -> None:
    """Else a head that is right would never be asked for a second draft, where a row costs more than half."""
    shared = Experience(3, is_by_place=True)
    earlier, first = Acceptance(shared), Acceptance(shared)
    for end in range(50):
        first.note([1], 0, end)
        first.judge([1] * (end + 1))
    assert first.rate(0) == first.rate(1) == first.rate(2) > 0.99
    first.note([1, 1], 0, 0)
    first.judge([1, 2])
    assert first.rate(0) > first.rate(1) == first.rate(2) > FIRST_RATE
    assert earlier.rate(2) == FIRST_RATE and Acceptance(shared).rate(2) == shared.rates[1] < shared.rates[0]
