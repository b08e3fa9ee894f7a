"""benchmarks/gpu/predicted.py: what it says stands in docs/cuda.md, line by line; it knows what is published."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
GPU = ROOT / "benchmarks" / "gpu"


def published(path: Path) -> object:
    (found,) = (
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PUBLISHED"
    )
    return ast.literal_eval(found)


def test_what_is_predicted_stands_in_the_documents() -> None:
    said = subprocess.run([sys.executable, "predicted.py"], capture_output=True, text=True, check=True, cwd=GPU).stdout
    lines, document = said.splitlines(), (ROOT / "docs" / "cuda.md").read_text()
    assert len(lines) > 20
    assert not [line for line in lines if line not in document], "run benchmarks/gpu/predicted.py, and put it there"


def test_it_predicts_what_is_measured() -> None:
    assert published(GPU / "predicted.py") == published(GPU / "parts" / "throughput.py")
