"""Starts of processes: what the parts are, which rounds count, and what is said of one that fails."""

from __future__ import annotations

import pytest

from albireo.api.sources.locate import BUNDLED
from albireo.bench.startup import PARTS, Startup, forget, measure_startup, parts_s, start_process, startup_lines
from albireo.errors import ConfigError, EngineError, ResourceError


def plain(rounds, what):
    return rounds


def moments(begun, *parts):
    at, found = begun, {}
    for name, part in zip(("started", "imported", "loaded", "token"), parts, strict=True):
        at += part
        found[name] = at
    return begun, found


def test_parts_add_up():
    assert parts_s(*moments(10.0, 0.5, 0.25, 1.0, 2.0)) == [0.5, 0.25, 1.0, 2.0]


def test_figures():
    asked = []
    loads = iter([4.0, 2.0, 100.0, 1.0, 3.0, 2.0])

    def start(wanted):
        asked.append(wanted)
        return moments(5.0, 0.5, 0.5, next(loads), 1.0)

    startup = Startup(directory=BUNDLED, engine={"seed": 3}, num_cold=2, num_warmups=1, num_warm=3, input_len=9)
    found = measure_startup(startup, plain, start)
    assert len(asked) == 6
    assert asked[0] == {"engine": {"seed": 3, "model": str(BUNDLED)}, "input_len": 9}
    assert found["cold_startup_times"] == [6.0, 4.0]
    assert found["warm_startup_times"] == [3.0, 5.0, 4.0]
    assert (found["avg_cold_startup_time"], found["avg_warm_startup_time"]) == (5.0, 4.0)
    assert found["warm_startup_percentiles"]["50"] == 4.0
    assert found["cold_parts"]["load"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert list(found["warm_parts"]) == list(PARTS)
    shown = startup_lines(found)
    assert shown[0].endswith("story, checkpoint")
    assert shown[1].startswith("cold start    5.000 s  (4.000 s to 6.000 s)") and shown[1].endswith("2 rounds")
    assert "  first token 1.000 s" in shown


def test_rounds_of_one_kind_only():
    found = measure_startup(
        Startup(directory=BUNDLED, num_cold=0, num_warmups=0, num_warm=1), plain, lambda _: moments(0.0, 1, 1, 1, 1)
    )
    assert not any(key.startswith("cold") for key in found)
    assert len(startup_lines(found)) == 6


def test_a_real_process_and_one_that_cannot_load():
    begun, found = start_process({"engine": {"model": str(BUNDLED)}, "input_len": 4})
    assert all(part > 0 for part in parts_s(begun, found))
    with pytest.raises(EngineError, match="there is no directory"):
        start_process({"engine": {"model": "./no/such"}, "input_len": 4})
    with pytest.raises(ResourceError, match="ended with code 1 before its first token: KeyError"):
        start_process({})


def test_forgetting_leaves_the_files_as_they_are(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights").write_bytes(b"w" * 100_000)
    forget(tmp_path)
    assert (tmp_path / "sub" / "weights").read_bytes() == b"w" * 100_000


@pytest.mark.parametrize("fields", [{"num_cold": -1}, {"input_len": 0}, {"num_cold": 0, "num_warm": 0}])
def test_refusals(fields):
    with pytest.raises(ConfigError, match=r"not allowed|nothing to measure"):
        Startup(directory=BUNDLED, **fields)
