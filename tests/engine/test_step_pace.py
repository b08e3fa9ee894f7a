"""How long steps with prompts become: on machines that are made up, by what they take."""

from __future__ import annotations

import pytest

from albireo.engine.step_pace import ALONE, FEWEST, FIRST, StepPace


def settled(pace: StepPace, num_decoding: int, start_s: float, token_s: float, num_steps: int = 30) -> int:
    """Tokens of a step of a machine that takes so long to begin one, and for each token."""
    for _ in range(num_steps):
        limit = pace.limit(num_decoding)
        pace.observe(limit, limit - num_decoding, start_s + limit * token_s)
    return pace.limit(num_decoding)


@pytest.mark.parametrize("start_s", [0.0, 0.02, 0.1])
def test_a_step_takes_as_long_as_it_is_to(start_s: float) -> None:
    limit = settled(StepPace(0.2, 4096), 3, start_s, 0.001)
    assert start_s + limit * 0.001 == pytest.approx(0.2, abs=0.002 * FEWEST), "but for what is no whole block"
    assert (limit - 3) % FEWEST == 0


def test_where_nobody_decodes_it_may_take_longer() -> None:
    pace = StepPace(0.2, 4096)
    settled(pace, 1, 0.0, 0.001)
    assert pace.limit(0) == pytest.approx(200 * ALONE, abs=FEWEST)
    assert settled(StepPace(0.2, 960), 0, 0.0, 0.0001) == 960


@pytest.mark.parametrize(("num_decoding", "prompts"), [(1, FEWEST), (15, FEWEST), (40, 32), (64, 64)])
def test_however_slow_prompts_have_as_much_as_those_that_decode(num_decoding: int, prompts: int) -> None:
    assert settled(StepPace(0.05, 4096), num_decoding, 0.5, 0.01) == num_decoding + prompts


def test_one_step_that_was_held_up_is_soon_forgotten() -> None:
    pace = StepPace(0.2, 4096)
    before = settled(pace, 2, 0.01, 0.001)
    pace.observe(before, before - 2, 4.0)
    assert pace.limit(2) < before / 3
    assert settled(pace, 2, 0.01, 0.001, num_steps=6) >= 0.9 * before


def test_before_anything_is_known_and_without_a_target() -> None:
    assert StepPace(0.2, 4096).limit(5) == FIRST + 5
    assert StepPace(0.2, 32).limit(5) == 32
    pace = StepPace(0.0, 960)
    pace.observe(960, 960, 100.0)
    assert pace.limit(0) == pace.limit(7) == 960


def test_steps_without_prompts_say_nothing() -> None:
    pace = StepPace(0.2, 4096)
    pace.observe(64, 0, 10.0)
    pace.observe(64, FEWEST - 1, 10.0)
    assert pace.limit(0) == FIRST
