"""benchmarks/gpu/first_hour.py runs every part, tiny and interpreted, and goes on where a part fails."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

GPU = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu"
#: The script, with the interpreter as tests have it, and without the native core, which it does not need.
FAST = f"""
import runpy, sys
sys.path.insert(0, {str(GPU.parents[1] / "tests")!r})
from backends.cuda.interpreter import hasten
hasten()
sys.modules["albireo._native"] = None
sys.argv[0] = "first_hour.py"
runpy.run_path("first_hour.py", run_name="__main__")
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=GPU)


def test_every_part_runs(tmp_path: Path) -> None:
    """Half of them beside the other half."""
    parts = sorted({part.stem for part in (GPU / "parts").glob("*.py")} - {"__init__"})
    outs = [tmp_path / "first.json", tmp_path / "second.json"]

    def dry_run(out: Path, names: list[str]) -> subprocess.CompletedProcess[str]:
        return run("-c", FAST, "--dry-run", "--out", str(out), "--parts", ",".join(names))

    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(dry_run, outs, (parts[::2], parts[1::2])))
    for out, names, done in zip(outs, (parts[::2], parts[1::2]), runs, strict=True):
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        found = json.loads(out.read_text())
        assert [part["name"] for part in found["parts"]] == names
        rows = [row for part in found["parts"] for row in part["rows"]]
        assert not [row for row in rows if row["is_good"] is False]
        for part in found["parts"]:
            assert part["rows"] or part["reason"], part
        lines = done.stdout.splitlines()
        told = [row["name"] for row in rows if row["name"].startswith("verdict: ")]
        assert told and all(name in line for name, line in zip(told, lines[-len(told) :], strict=True))


def test_each_part_is_in_one_call_of_ten_minutes() -> None:
    show = "print(json.dumps([parts.PARTS, parts.CALLS]))"
    parts, calls = json.loads(run("-c", f"import json, parts; {show}").stdout)
    assert sorted(name for groups in calls.values() for group in groups for name in group) == sorted(parts)
    for groups in calls.values():
        assert sum(max(parts[name] for name in group) for group in groups) <= 590


def test_what_is_wrong_is_told_last_with_its_element() -> None:
    show = """
import json, time, torch
from checks import Finding, run_checks, same_bits, worst
from report import PartResult, table, target, verdict
from setup import Setup
setup = Setup(torch.device("cpu"), False, time.monotonic() + 60)
got, wanted = torch.tensor([[1.0, 2.0], [3.0, float("nan")]]), torch.tensor([[1.0, 2.0], [3.5, 4.0]])
def checks(setup):
    yield worst("numbers", got[:, :1], wanted[:, :1], torch.full((2, 1), 0.25))
    yield worst("none", got, wanted, torch.ones(2, 2))
    yield same_bits(setup, "bits", {1: got[1:, :1], 2: wanted[:, :1]})
    yield "pair", 0.5
rows = list(run_checks(setup, {"all": checks}))
rows += [target("y", 2.0, 3.0), verdict("x", "file.NAME", "a", {"a": 3e-6, "b": 2e-6})]
part = PartResult("some", "wrong", 1.0, "", rows)
print(table([part, PartResult("dead", "failed", 1.0, "a fault")]))
"""
    done = run("-c", show)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
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
