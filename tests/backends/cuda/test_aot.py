"""Every kernel compiles for every GPU it is meant for, within its bounds, and to the instructions it is written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import albireo

KERNELS = Path(albireo.__file__).parent / "backends" / "cuda" / "kernels"
MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if "def aot_cases" in path.read_text())


def test_every_kernel_file_has_cases() -> None:
    with_kernels = {path.stem for path in KERNELS.glob("*.py") if "\n@triton.jit" in path.read_text()}
    assert with_kernels == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_compiled_kernels_keep_their_bounds(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    worker = Path(__file__).parent / "aot_worker.py"
    done = subprocess.run(
        [sys.executable, str(worker), module], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cases = json.loads(done.stdout)
    assert cases
    for case in cases:
        assert case["spills"] == 0, case
        assert case["registers"] <= case["max_registers"], case
        assert case["shared"] <= case["max_shared"], case
        assert not case["missing"], case
