"""The lines about speed of a directory just built."""

from __future__ import annotations

from pathlib import Path

import pytest

from albireo.backends.cpu.machine import isa_levels
from albireo.bench import built
from albireo.bench.built import speed_rows
from albireo.errors import OutOfMemory
from artifact.engines import make_engine


def test_a_prediction_stands_beside_what_was_measured(tmp_path: Path) -> None:
    _, engine = make_engine(tmp_path, "llama", "bfloat16", target="scalar")
    names = [name for name, _ in speed_rows(engine, ("scalar",))]
    assert names == ["predicted", "measured"]


def test_what_cannot_be_measured_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OutOfMemory("there is no room")

    monkeypatch.setattr(built, "measure_short", full)
    assert list(speed_rows(tmp_path, isa_levels())) == [("speed", "not measured: there is no room")]
