"""Processes of our own find no modules where the user happens to stand."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import albireo
from albireo.own_python import command_of


def test_modules_of_the_working_directory_are_not_run(tmp_path: Path) -> None:
    for name in ("click", "json", "signal", "albireo"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the file beside the model was run')")
    run = subprocess.run([*command_of("albireo"), "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.strip() == f"albireo, version {albireo.__version__}"


def test_what_this_interpreter_leaves_out_those_leave_out() -> None:
    said = "from albireo.own_python import command_of; print(*command_of('a')[1:])"
    for flags, expected in (((), "-P -m a"), (("-I",), "-I -m a"), (("-E", "-s"), "-P -E -s -m a")):
        run = subprocess.run([sys.executable, *flags, "-c", said], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


def test_nobody_starts_an_interpreter_otherwise() -> None:
    package = Path(albireo.__file__).parent
    found = []
    for path in package.rglob("*.py"):
        tree = ast.walk(ast.parse(path.read_text())) if "executable" in path.read_text() else ()
        found += [path.name for node in tree if isinstance(node, ast.Attribute) and node.attr == "executable"]
    assert found == ["own_python.py"]
