"""A whole session on the bundled model, with a clock that decides what is fast."""

from __future__ import annotations

import pytest

from albireo.backends.cpu.probe import SpeedProbe
from albireo.errors import ConfigError
from albireo.graph.tuning import BUCKET_NAMES, Tuning
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
    assert sum("+100.0 %  claims 8 -> 16" in line for line in lines) == len(changed)
    assert sum(line.endswith("kept") for line in lines) == len(result.table.entries) - len(changed)
    assert summary(result).startswith(f"{len(changed)} of {len(result.table.entries)} choices changed")


@pytest.mark.usefixtures("fast_machine")
def test_what_makes_whole_steps_slower_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepTimer, "seconds", lambda self, choice: 2.0 if choice == session.TUNED else 1.0)
    result = tuned()
    assert result.steps and all(step.is_dropped for step in result.steps)
    assert {e.tuning for e in result.table.entries} == {Tuning()}
    assert any("dropped" in line for line in table_lines(result))


@pytest.mark.usefixtures("fast_machine")
def test_what_there_is_no_time_for_is_left_and_said() -> None:
    result = tuned(budget_s=20.0)
    assert result.num_left > 0
    assert f"{result.num_left} not measured" in summary(result)
    assert {BUCKET_NAMES[e.bucket] for e in result.table.entries} <= {"1", "9-28"}


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
