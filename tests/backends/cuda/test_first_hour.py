"""benchmarks/gpu/first_hour.py runs every part, tiny and interpreted, and goes on where a part fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu"
#: The script, with the interpreter as tests have it, and without the native core, which it does not need.
FAST = f"""
import runpy, sys
sys.path.insert(0, {str(GPU.parents[1] / "tests")!r})
from backends.cuda.interpreter import prepare_once
prepare_once()
sys.modules["albireo._native"] = None
sys.argv[0] = "first_hour.py"
runpy.run_path("first_hour.py", run_name="__main__")
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=GPU)


def test_every_part_runs(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    done = run("-c", FAST, "--dry-run", "--out", str(out))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads(out.read_text())
    parts = {part.stem for part in (GPU / "parts").glob("*.py")} - {"__init__"}
    assert {part["name"] for part in found["parts"]} == parts
    rows = [row for part in found["parts"] for row in part["rows"]]
    assert not [row for row in rows if row["is_good"] is False]
    for part in found["parts"]:
        assert part["rows"] or part["reason"], part
    assert done.stdout.splitlines()[-1].startswith(found["parts"][-1]["name"])


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
