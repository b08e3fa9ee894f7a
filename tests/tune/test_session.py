"""A whole session on the bundled model, with a clock that decides what is fast."""

from __future__ import annotations

import pytest

from albireo.backends.cpu.probe import SpeedProbe
from albireo.errors import ConfigError
from albireo.graph.tuning import BUCKETS, Tuning
from albireo.tune import session
from albireo.tune.measure import CallTimer, StepTimer
from albireo.tune.report import summary, table_lines
from albireo.tune.session import TuneResult, tune_model


def cost(tuning: Tuning) -> float:
    return 1.0 if tuning.claims == 16 else 2.0


@pytest.fixture
def fast_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 claims halve the time of a call; steps are as fast as their calls; memory is as fast as ever."""
    monkeypatch.setattr(SpeedProbe, "read", lambda self: 50e9)
    monkeypatch.setattr(CallTimer, "seconds", lambda self, choice: cost(choice))
    monkeypatch.setattr(CallTimer, "glance", lambda self, choice: cost(choice))
    monkeypatch.setattr(StepTimer, "seconds", lambda self, choice: 1.0 if choice == session.TUNED else 2.0)


def tuned(**how: object) -> TuneResult:
    ticks = iter(range(10**6))
    return tune_model(None, num_threads=2, **{"budget_s": 1e6, "clock": lambda: float(next(ticks)), **how})  # type: ignore[arg-type]


@pytest.mark.usefixtures("fast_machine")
def test_what_is_faster_is_kept_wherever_it_makes_a_difference() -> None:
    seen: list[tuple[int, int]] = []
    result = tuned(on_point=lambda done, total: seen.append((done, total)))
    assert result.num_left == 0
    assert {e.tuning for e in result.table.entries} == {Tuning(), Tuning(claims=16)}
    changed = [e for e in result.table.entries if e.tuning != Tuning()]
    assert all((e.before_s, e.after_s, e.rounds) == (2.0, 1.0, 5) for e in changed)
    assert {step.bucket for step in result.steps} == {e.bucket for e in changed}
    assert not any(step.is_dropped for step in result.steps)
    assert seen[0] == (0, len(result.table.entries)) and seen[-1] == (len(result.table.entries),) * 2
    lines = list(table_lines(result))
    assert len(lines) == 1 + len(result.table.entries) + len(result.steps)
    assert sum("+100.0 %  claims 4 -> 16" in line for line in lines) == len(changed)
    assert sum(line.endswith("measured, kept") for line in lines) == len(result.table.entries) - len(changed)
    total = len(result.table.entries)
    assert summary(result).startswith(f"{total} of {total} choices measured, {len(changed)} changed")


@pytest.mark.usefixtures("fast_machine")
def test_what_makes_whole_steps_slower_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimer, "seconds", lambda self, choice: 2.0 if choice == session.TUNED else 1.0)
    result = tuned()
    assert result.steps and all(step.is_dropped for step in result.steps)
    assert {e.tuning for e in result.table.entries} == {Tuning()}
    assert any("dropped" in line for line in table_lines(result))


@pytest.mark.usefixtures("fast_machine")
def test_what_there_is_no_time_for_is_left_and_said() -> None:
    result = tuned(budget_s=100.0)
    everything = tuned()
    assert 1 < len(result.table.entries) < len(everything.table.entries)
    assert len(result.table.entries) + result.num_left == len(everything.table.entries)
    assert f"{result.num_left} left as they are" in summary(result)


@pytest.mark.usefixtures("fast_machine")
def test_changes_that_there_is_no_time_to_try_in_whole_steps_are_dropped() -> None:
    """The clock goes on in leaps once everything is measured."""
    total = len(tuned().table.entries)
    leap = [0.0]
    ticks = iter(range(10**6))

    def on_point(done: int, of: int) -> None:
        leap[0] = 1e9 if done == total - 1 else 0.0

    result = tuned(clock=lambda: next(ticks) + leap[0], on_point=on_point)
    assert result.steps and all(step.is_dropped for step in result.steps)
    assert {e.tuning for e in result.table.entries} == {Tuning()}
    assert any("no time was left to try them in whole steps" in line for line in table_lines(result))


@pytest.mark.usefixtures("fast_machine")
def test_what_takes_most_of_a_step_comes_first() -> None:
    """A short session reaches the largest calls at few rows and at many, and leaves the small ones."""
    entries = tuned().table.entries
    order = [(str(entry.key), entry.bucket) for entry in entries]
    assert len({bucket for _, bucket in order[: len(BUCKETS)]}) > 1
    for bucket in range(len(BUCKETS)):
        small, large = ("attention 4/2 heads of 64", bucket), ("linear 704 x 256 silu_mul", bucket)
        if small in order and large in order:
            assert order.index(small) > order.index(large)


@pytest.mark.parametrize("budget_s", [0.0, -1.0, float("nan")])
def test_a_budget_of_nothing_is_refused(budget_s: float) -> None:
    with pytest.raises(ConfigError, match="allows no measurement"):
        tune_model(None, budget_s=budget_s)


@pytest.mark.usefixtures("fast_machine")
def test_a_session_without_time_still_measures_the_defaults_once() -> None:
    result = tuned(budget_s=1e-9)
    assert [e.tuning for e in result.table.entries] == [Tuning()]
    assert result.num_left > 0 and not result.steps


def test_a_real_session_measures_real_calls() -> None:
    result = tune_model(None, budget_s=0.2, num_threads=2)
    assert result.table.entries
    assert all(e.before_s > 0 and e.after_s > 0 for e in result.table.entries)
