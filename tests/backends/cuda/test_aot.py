"""Every kernel compiles for every GPU it is meant for, within its bounds, and to the instructions it is written for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

import albireo
from albireo.backends.cuda.aot import disassembled, spills, spills_in_loops

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

    wanted = dict.fromkeys(item.callspec.params["module"] for item in request.session.items if _is_compiled(item))
    with ThreadPoolExecutor(NUM_WORKERS) as pool:
        yield {module: pool.submit(compiled, module) for module in wanted}
    for worker in workers:
        worker.communicate()


@pytest.fixture(scope="session")
def listings(cases: dict[str, Future[Any]]) -> dict[tuple[str, str, int], str]:
    """Machine code, by module, case and architecture, of all that has to be looked at."""
    found: dict[int, list[tuple[tuple[str, str, int], bytes]]] = {}
    for module, future in cases.items():
        for case in future.result() if isinstance(future.result(), list) else ():
            if case["code"] is not None:
                key = (module, case["name"], case["architecture"])
                found.setdefault(case["architecture"], []).append((key, b64decode(case["code"])))
    return {
        key: text
        for architecture, codes in found.items()
        for (key, _), text in zip(codes, disassembled(architecture, [code for _, code in codes]), strict=True)
    }


def _is_compiled(item: pytest.Item) -> bool:
    return item.path.name == Path(__file__).name and "module" in getattr(item, "fixturenames", ())


def test_every_kernel_file_has_cases() -> None:
    with_kernels = {path.stem for path in KERNELS.glob("*.py") if "\n@triton.jit" in path.read_text()}
    assert with_kernels == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_compiled_kernels_keep_their_bounds(module: str, cases: dict[str, Future[Any]]) -> None:
    found = cases[module].result()
    assert isinstance(found, list) and found, found
    for case in found:
        assert case["registers"] <= case["max_registers"], _which(case)
        assert case["shared"] <= case["max_shared"], _which(case)
        # else a step of one, of 16 and of 17 would each wait for the compiler
        assert not case["specialized"], _which(case)


@pytest.mark.parametrize("module", MODULES)
def test_machine_code_has_what_it_is_written_for_and_spills_nothing(
    module: str, cases: dict[str, Future[Any]], listings: dict[tuple[str, str, int], str]
) -> None:
    for case in cases[module].result():
        sass = listings.get((module, case["name"], case["architecture"]), "")
        assert spills(sass) <= case["max_spills"], _which(case)
        assert spills_in_loops(sass) == 0, _which(case)
        assert [word for word in case["words"] if word not in sass] == [], _which(case)


def _which(case: dict[str, Any]) -> str:
    return f"{case['name']} for {case['architecture']}"
