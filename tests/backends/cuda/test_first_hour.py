"""benchmarks/gpu/first_hour.py runs every part, tiny and interpreted, and goes on where a part fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

GPU = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu"
#: What Python reads as it begins: kernels are interpreted as tests have it, in the script and in its server's engine,
#: neither of which needs the native core.
SITE = f"""
import gc, os, sys
scripts = [word.rpartition("/")[2] for word in sys.orig_argv]
if "first_hour.py" in scripts or "random_worker.py" in scripts:
    sys.path.insert(0, {str(GPU.parents[1] / "tests")!r})
    from backends.cuda.interpreter import hasten
    hasten()
    sys.modules["albireo._native"] = None
if "first_hour.py" in scripts:
    gc.disable()  # of tapes there are millions of objects, which stay until the end
    os.nice(10)
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=GPU)


@pytest.fixture(scope="session")
def dry_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen[str], Path] | None]:
    """The script with its parts, beside the other tests, and a directory: out.json, and what it said. None: no test
    wants to know."""
    if not any(item.name == test_every_part_runs.__name__ for item in request.session.items):
        yield None
        return
    place = tmp_path_factory.mktemp("first_hour")
    (place / "sitecustomize.py").write_text(SITE)
    command = [
        sys.executable,
        "first_hour.py",
        "--dry-run",
        "--out",
        str(place / "out.json"),
        "--parts",
        ",".join(asked(request.config)),
    ]
    with (place / "said").open("w") as said, (place / "errors").open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=errors,
            text=True,
            cwd=GPU,
            env=os.environ | {"PYTHONPATH": str(place)},
        )
        yield process, place
        if process.poll() is None:
            process.terminate()
            process.wait()


def names() -> list[str]:
    return sorted({part.stem for part in (GPU / "parts").glob("*.py")} - {"__init__"})


def asked(config: pytest.Config) -> list[str]:
    """All; what serves, in processes of its own, and what imports models of transformers only in a thorough run."""
    return [name for name in names() if name not in ("busy", "transformers") or config.getoption("--thorough")]


def test_every_part_runs(dry_run: tuple[subprocess.Popen[str], Path], pytestconfig: pytest.Config) -> None:
    process, place = dry_run
    code = process.wait()
    said = (place / "said").read_text()
    assert code == 0, said[-6000:] + (place / "errors").read_text()[-2000:]
    found = json.loads((place / "out.json").read_text())
    assert [part["name"] for part in found["parts"]] == asked(pytestconfig)
    rows = [row for part in found["parts"] for row in part["rows"]]
    assert not [row for row in rows if row["is_good"] is False]
    for part in found["parts"]:
        assert part["rows"] or part["reason"], part
    lines = said.splitlines()
    told = [row["name"] for row in rows if row["name"].startswith("verdict: ")]
    assert told and all(name in line for name, line in zip(told, lines[-len(told) :], strict=True))
    kernels = [line for line in lines if line.startswith("kernel ")]
    assert len(kernels) > 60 and not [line for line in kernels if "NONE" in line], "held against torch by no part"


@pytest.mark.usefixtures("dry_run")
def test_each_part_is_in_one_call_of_ten_minutes() -> None:
    """Among the first of this folder (conftest.py): what takes long is begun."""
    show = "print(json.dumps([parts.PARTS, parts.CALLS]))"
    parts, calls = json.loads(run("-c", f"import json, parts; {show}").stdout)
    assert sorted(name for groups in calls.values() for group in groups for name in group) == sorted(parts)
    for groups in calls.values():
        assert sum(max(parts[name] for name in group) for group in groups) <= 590


def test_all_parts_have_some_of_the_time_where_a_call_has_less() -> None:
    """Of less than half of what they have together the first have all."""
    ends = "[first_hour.planned_ends(groups, seconds) for seconds in (590, 400, 200)]"
    show = f"groups = parts.CALLS['constants']; print(json.dumps([groups, *{ends}]))"
    groups, whole, short, little = json.loads(run("-c", f"import first_hour, json, parts; {show}").stdout)
    assert len(groups) == len(whole) and whole[-1] <= 590 and short[-1] == pytest.approx(400)
    steps = [b - a for a, b in zip([0, *short], short, strict=False)]
    assert min(steps) > 10 and whole[0] > short[0]
    assert little[0] == whole[0] and little[-2:] == [200, 200]


@pytest.fixture
def _scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of benchmarks/gpu, which have names of their own: here while a test wants them."""
    monkeypatch.syspath_prepend(GPU)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(f"{GPU}/"):
            del sys.modules[name]


@pytest.mark.usefixtures("_scripts")
def test_what_is_wrong_is_told_last_with_its_element() -> None:
    from checks import Finding, run_checks, same_bits, worst
    from report import PartResult, table, target, verdict
    from setup import Setup

    setup = Setup(torch.device("cpu"), False, time.monotonic() + 60)
    got, wanted = torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), torch.tensor([[1.0, 2.0], [3.5, 4.0]])

    def checks(setup: Setup) -> Iterator[Finding]:
        yield worst("numbers", got[:, :1], wanted[:, :1], torch.full((2, 1), 0.25))
        yield worst("none", got, wanted, torch.ones(2, 2))
        yield same_bits(setup, "bits", {1: got[1:, :1], 2: wanted[:, :1]})
        yield "pair", 0.5

    rows = list(run_checks(setup, {"all": checks}))
    rows += [target("y", 2.0, 3.0), verdict("x", "file.NAME", "a", {"a": 3e-6, "b": 2e-6})]
    part = PartResult("some", "wrong", 1.0, "", rows)
    lines = table([part, PartResult("dead", "failed", 1.0, "a fault")]).splitlines()
    (told,) = (i for i, line in enumerate(lines) if "verdict: x" in line and i > 8)
    assert "best: b (2.0 us), now: a (3.0 us), gain 1.500; set file.NAME" in lines[told]
    assert "target: y" in lines[told - 1] and "missed: at least 3" in lines[told - 1]
    numbers, none, bits = (next(line for line in lines[told:] if word in line) for word in ("numbers", "none", "bits"))
    assert "at (1, 0): 3 instead of 3.5; 1 of 2 are off" in numbers and "WRONG" in numbers
    assert "at (1, 1): nan instead of 4" in none and "1 of 4" in none
    assert "1 tokens: 1 of 1, first row 0, by 2" in bits
    assert any("wrong after" in line for line in lines[told:]) and "a fault" in lines[-1]
    assert not any("pair" in line for line in lines[told:])


def test_a_part_that_fails_keeps_what_it_found() -> None:
    """Where there is no GPU, the part that describes one fails at its second row."""
    show = "print(json.dumps([found.status, len(found.rows), found.reason]))"
    done = run("-c", f"import json, first_hour; found = first_hour._apart('machine', 60); {show}")
    status, rows, reason = json.loads(done.stdout)
    if status == "ok":
        pytest.skip("there is a GPU")
    assert (status, rows) == ("failed", 1)
    assert reason


def test_unknown_parts_are_named() -> None:
    done = run("first_hour.py", "--dry-run", "--parts", "decode,nothing")
    assert done.returncode == 2
    assert "nothing" in done.stderr
