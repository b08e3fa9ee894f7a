"""Every kernel compiles for every GPU it is meant for, within its bounds, and to the instructions it is written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import albireo

KERNELS = Path(albireo.__file__).parent / "backends" / "cuda" / "kernels"
MODULES = sorted(path.stem for path in KERNELS.glob("*.py") if "def aot_cases" in path.read_text())
NUM_WORKERS = min(4, len(os.sched_getaffinity(0)))


@pytest.fixture(scope="session")
def cases(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """What became of the modules that are tested, compiled by a process a core."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(Path(__file__).parent / "aot_worker.py")]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(NUM_WORKERS)
    ]
    idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def compiled(module: str) -> Any:
        worker = idle.get()
        try:
            assert worker.stdin is not None and worker.stdout is not None
            print(module, file=worker.stdin, flush=True)
            return json.loads(worker.stdout.readline())
        finally:
            idle.put(worker)

    wanted = [item.callspec.params["module"] for item in request.session.items if _is_compiled(item)]
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        yield {module: pool.submit(compiled, module) for module in wanted}
    for worker in workers:
        worker.communicate()


def _is_compiled(item: pytest.Item) -> bool:
    return getattr(item, "originalname", None) == test_compiled_kernels_keep_their_bounds.__name__


def test_every_kernel_file_has_cases() -> None:
    with_kernels = {path.stem for path in KERNELS.glob("*.py") if "\n@triton.jit" in path.read_text()}
    assert with_kernels == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_compiled_kernels_keep_their_bounds(module: str, cases: dict[str, Future[Any]]) -> None:
    found = cases[module].result()
    assert isinstance(found, list) and found, found
    for case in found:
        assert case["spills"] <= case["max_spills"], case
        assert case["spills_in_loops"] == 0, case
        assert case["registers"] <= case["max_registers"], case
        assert case["shared"] <= case["max_shared"], case
        assert not case["missing"], case
        # else a step of one, of 16 and of 17 would each wait for the compiler
        assert not case["specialized"], case
