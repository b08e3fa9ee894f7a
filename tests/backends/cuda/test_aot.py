"""Every kernel compiles for every GPU it is meant for, within its bounds, and to the instructions it is written for.

What came of compiling is in aot_ledger.json; what is not there, and a part of what is, is compiled here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import triton

from albireo.backends.cuda.aot import KERNELS, modules_with_cases
from albireo.backends.cuda.aot_ledger import Ledger

HERE = Path(__file__).parent
MODULES = modules_with_cases()
LEDGER = Ledger.read(HERE / "aot_ledger.json")
SAMPLE = LEDGER.sample()
ANEW = "write tests/backends/cuda/aot_ledger.json anew: make aot"

Cases = list[dict[str, Any]]


@pytest.fixture(scope="session")
def answers(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """By module, what one of the processes beside the tests says of all that it was asked: of all modules one, where
    the ledger is of this Triton; else one a core, of a module at a time.
    """
    wanted = list(dict.fromkeys(item.callspec.params["module"] for item in request.session.items if _is_of_one(item)))
    asked = [wanted] if LEDGER.applies else [[module] for module in wanted]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    num_workers = max(1, min(len(asked), 4, len(os.sched_getaffinity(0))))
    workers = [
        subprocess.Popen(
            [sys.executable, str(HERE / "aot_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(num_workers)
    ]
    idle: SimpleQueue[subprocess.Popen[str]] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def answer(modules: list[str]) -> Any:
        worker = idle.get()
        try:
            assert worker.stdin is not None and worker.stdout is not None
            print(*modules, file=worker.stdin, flush=True)
            return json.loads(worker.stdout.readline())
        finally:
            idle.put(worker)

    with ThreadPoolExecutor(num_workers) as pool:
        futures = [(modules, pool.submit(answer, modules)) for modules in asked]
        yield {module: future for modules, future in futures for module in modules}
    for worker in workers:
        worker.communicate()


@pytest.fixture(scope="session")
def cases(answers: dict[str, Future[Any]]) -> Callable[[str], Cases]:
    """Of a module; waits for it."""

    def found(module: str) -> Cases:
        answer = answers[module].result()
        assert isinstance(answer, list), answer
        return [case for case in answer if case["module"] == module]

    return found


def _is_of_one(item: pytest.Item) -> bool:
    return item.path == Path(__file__) and "module" in getattr(item, "fixturenames", ())


def test_every_kernel_file_has_cases(answers: dict[str, Future[Any]]) -> None:
    """The first of this folder (conftest.py), so that what has to be compiled is begun; it waits for nothing."""
    with_kernels = {path.stem for path in KERNELS.glob("*.py") if "\n@triton.jit" in path.read_text()}
    assert with_kernels == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_compiled_kernels_keep_their_bounds(module: str, cases: Callable[[str], Cases]) -> None:
    assert cases(module)
    for case in cases(module):
        facts = case["measured"] or case["known"]
        assert facts["registers"] <= case["max_registers"], case["label"]
        assert facts["shared"] <= case["max_shared"], case["label"]
        assert facts["spills"] <= case["max_spills"], case["label"]
        assert facts["spills_in_loops"] == 0, case["label"]
        # what cannot be compiled may become a trap without a word: sixteen instructions
        assert facts["instructions"] >= 32, case["label"]
        assert [word for word, is_there in facts["words"].items() if not is_there] == [], case["label"]
        # else a step of one, of 16 and of 17 would each wait for the compiler
        assert not case["specialized"], case["label"]


@pytest.mark.parametrize("module", MODULES)
def test_the_ledger_has_what_would_be_compiled(module: str, cases: Callable[[str], Cases]) -> None:
    _skip_where_it_does_not_apply()
    labels = [case["label"] for case in cases(module)]
    assert len(set(labels)) == len(labels), "two cases have one name"
    assert not [case["label"] for case in cases(module) if case["known"] is None], f"not in the ledger; {ANEW}"
    assert set(LEDGER.entries.get(module, {})) <= set(labels), f"the ledger has what is no case any more; {ANEW}"
    for case in cases(module):
        expected = case["known"] if case["known"]["key"] in SAMPLE else None
        assert case["measured"] == expected, f"something else came of {case['label']}; {ANEW} ALL=--all"


def test_the_ledger_has_no_other_modules() -> None:
    _skip_where_it_does_not_apply()
    assert set(LEDGER.entries) == set(MODULES), ANEW


def _skip_where_it_does_not_apply() -> None:
    if not LEDGER.applies:
        pytest.skip(f"the ledger is of Triton {LEDGER.version}, not of {triton.__version__}: everything was compiled")
