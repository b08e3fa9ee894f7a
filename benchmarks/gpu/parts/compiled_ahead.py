"""Kernels that processes without a GPU compiled: whether the one that serves finds all of them.

What `albireo serve` does on a machine that meets a model for the first time (api/machine/compile_ahead.py), of two
layers in the shape of Llama-3.1-8B: then every step is recorded, and others are launched. A kernel that is compiled all
the same would be compiled while somebody waits; were all of them, the two see different GPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from report import Row
from setup import Setup, attempt

HERE = Path(__file__).resolve().parents[1]
PROCESSES = 4


def run(setup: Setup) -> Iterator[Row]:
    import albireo.backends.cuda.compile_ahead  # noqa: F401 - where it is missing the part is skipped

    for weights, kv_dtype in setup.pick((("bf16", "bfloat16"), ("fp8", "fp8")), (("bf16", "bfloat16"),)):
        args = (setup, weights, kv_dtype)
        yield from attempt(f"{weights}, cache of {kv_dtype}", lambda args=args: _found(*args))


def _found(setup: Setup, weights: str, kv_dtype: str) -> Iterator[Row]:
    import triton
    from compile_absent import LAYERS, LONGEST, MAXIMA
    from model import blocks_for, make_step, random_model, vocabulary

    label, start = f"{weights}, cache of {kv_dtype}", time.monotonic()
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as claims:
        if not setup.is_dry:  # nothing is compiled for an interpreter
            _compile(setup, weights, kv_dtype, directory, claims)
        seconds = time.monotonic() - start
        triton.knobs.cache.dir = directory
        there = set(Path(directory).rglob("*.cubin"))
        yield Row(f"{label}: compiled by {PROCESSES} others", len(there), "kernels", f"{seconds:.0f} s beside others")
        maxima, longest, most = setup.pick((MAXIMA, LONGEST, 256), ({"T": 16, "R": 2, "G": 2}, 64, 2))
        model = random_model(setup, weights, maxima, longest, blocks_for(64, most), layers=LAYERS, kv_dtype=kv_dtype)
        vocab = vocabulary(model)
        for new, sequences in setup.pick(((1500, 1), (8192, 1), (40, 100), (64, 128)), ((3, 1),)):
            if sequences * new <= maxima["T"]:
                model.run(make_step(new, 0, sequences, vocab))
        count = sum(1 for _ in iter(model.record_next, False)) if not setup.is_dry else 0
        new = sorted(path.stem for path in set(Path(directory).rglob("*.cubin")) - there)
        note = f"{count} steps recorded; {', '.join(new[:5])}"
        yield Row(f"{label}: compiled here all the same", len(new), "kernels", note, is_good=not new)
    del model
    setup.release()


def _compile(setup: Setup, weights: str, kv_dtype: str, directory: str, claims: str) -> None:
    told = [weights, kv_dtype, claims, str(setup.chip.multiprocessors), str(setup.chip.capability)]
    script, environment = str(HERE / "compile_absent.py"), os.environ | {"TRITON_CACHE_DIR": directory}
    begun = [
        subprocess.Popen(
            [sys.executable, script, *told, str(part), str(PROCESSES)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for part in range(PROCESSES)
    ]
    for process in begun:
        _, errors = process.communicate()
        if process.returncode:
            raise RuntimeError((errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
