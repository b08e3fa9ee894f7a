"""The machine is measured for real, but not for long: no test looks at how fast it is. For conftests of rooms whose
tests run commands, or plan."""

from __future__ import annotations

import pytest

from albireo.backends.cpu import probe
from albireo.bench import limits, short_run, tower_speed
from albireo.cli import doctor


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "DOT_ITERATIONS", 20_000)
    monkeypatch.setattr(limits, "MAX_READ_BYTES", 4 << 20)
    monkeypatch.setattr(limits, "_BURST_BYTES", 4 << 20)
    monkeypatch.setattr(doctor, "READ_BYTES", 4 << 20)
    monkeypatch.setattr(short_run, "_ENOUGH_S", 0.0)
    monkeypatch.setattr(tower_speed, "_RUNS", 1)
