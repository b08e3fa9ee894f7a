"""Writes aot_ledger.json and launched.json of tests/backends/cuda, what came of kernels compiled ahead: `make aot`.

What is missing is compiled, what has no case any more is dropped; with --all, or of another Triton, everything is
compiled.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import triton

from albireo.backends.cuda.aot import cases_of, modules_with_cases
from albireo.backends.cuda.aot_ledger import Facts, Ledger, label_of, measured

TESTS = Path(__file__).parents[1] / "tests"
LEDGER = TESTS / "backends" / "cuda" / "aot_ledger.json"


def kept_of(module: str, ledger: Ledger) -> tuple[str, dict[str, Facts], int]:
    """A module, its entries, and how many of them were compiled."""
    jobs = [(case, architecture) for case in cases_of(module) for architecture in case.architectures]
    found = {label_of(*job): ledger.facts_of(module, *job) for job in jobs}
    missing = [job for job in jobs if found[label_of(*job)] is None]
    found |= {label_of(*job): facts for job, facts in zip(missing, measured(missing), strict=True)}
    return module, {label: facts for label, facts in found.items() if facts is not None}, len(missing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="compile everything anew")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: one a core")
    options = parser.parse_args()
    is_new = options.all or not LEDGER.exists()
    ledger = Ledger(triton.__version__, {}) if is_new else Ledger.read(LEDGER)
    modules = modules_with_cases()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(kept_of, modules, [ledger] * len(modules)))
    Ledger(triton.__version__, {module: kept for module, kept, _ in done}).write(LEDGER)
    print(
        f"{sum(count for _, _, count in done)} of {sum(len(kept) for _, kept, _ in done)} compiled: {LEDGER}",
        flush=True,
    )
    # what a program launches, as a process has it that compiles ahead
    command = [sys.executable, "-m", "backends.cuda.launched_ledger", *["--all"] * options.all]
    subprocess.run(command, cwd=TESTS, check=True)


if __name__ == "__main__":
    main()
