"""The question: what does a matrix of each kind of weight take, beside the same matrix in bfloat16?

    python benchmarks/weights.py [--rows 1 4 48] [--columns 1024] [--depth 4096] [--rounds 12]

One linear, one thread, processor time, random weights that are rounded as loading rounds them (of kinds that nothing
is rounded to, any small bytes: pages that nobody wrote are all one page, which is in a cache), with the kernels this
machine would choose (ALBIREO_ISA_MAX caps them; --kinds names others). Kinds take turns, round by round, so that what
the machine does to one it does to all. Prints medians, least and most, and the ratio to bfloat16's median: a kind that
takes longer than bfloat16 where few rows are computed is not worth its name there.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from albireo import _native
from albireo.backends.cpu.catalog import CpuCatalog
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import TOKEN, natural_stride
from albireo.encodings import ENCODINGS

#: What numbers are rounded to while they are loaded; bfloat16 is copied.
KINDS = ("bfloat16", "int8", "int8.g128", "int4.g64", "fp8", "fp8.g128", "fp4.g32", "fp4.g16")


def step_of(rows: int) -> StepInputs:
    """One sequence of so many tokens, none of which leaves the model."""
    none, places = np.zeros(0, np.int32), np.arange(rows, dtype=np.int32)
    return StepInputs(
        token_ids=np.zeros(rows, np.int32),
        positions=places,
        slots=places,
        query_start=np.array([0, rows], np.int32),
        context_len=np.array([rows], np.int32),
        block_table=np.zeros((1, 1), np.int32),
        logit_rows=none,
        top_rows=none,
        top_counts=none,
    )


class Linear:
    """x [rows, k] @ weight [n, k]^T with one kind of weight; x is zeros, which take as long as other numbers."""

    def __init__(self, kind: str, rows: int, n: int, k: int) -> None:
        pool, numbers = thread_pool(1), np.random.default_rng(0).normal(size=(n, k)).astype(np.float32)
        addresses = np.array([numbers.ctypes.data + i * k * 4 for i in range(n)], np.uint64)
        memory = np.zeros(_native.panel_bytes(kind, k) * (n // 64) + 4096, np.uint8)
        self._weight = memory[-memory.ctypes.data % 4096 :]  # where a page begins, as in a model
        if kind in ENCODINGS and (ENCODINGS[kind].kind == "affine" or ENCODINGS[kind].is_nested):
            self._weight[:] = np.random.default_rng(1).integers(0, 64, self._weight.size)
        elif kind in ENCODINGS:
            _native.pack_rounded(pool, addresses, k, "float32", kind, self._weight.ctypes.data)
        else:
            _native.pack(pool, addresses, k, "float32", kind, self._weight.ctypes.data, True, False)
        x_dtype = ENCODINGS[kind].activation if kind in ENCODINGS else kind
        stride = natural_stride(TOKEN, k) if x_dtype == TOKEN else k
        self._x = np.zeros((rows, stride * {TOKEN: 1, "float32": 4}.get(x_dtype, 2)), np.uint8)
        self._out = np.zeros((rows, n), np.float32)
        args = {"x": self._x.ctypes.data, "x_stride": stride, "x_dtype": x_dtype, "rows": "T", "n": n, "k": k}
        args |= {"weight": self._weight.ctypes.data, "w_dtype": kind, "out": self._out.ctypes.data, "out_stride": n}
        self.kernel = CpuCatalog(isa_levels()).variants("linear", kind, {})[0].identity
        self._program, self._step = _native.Program(pool, rows), step_of(rows)
        self._program.add("linear", self.kernel.rpartition(".")[2], kind, args)
        self._top = np.zeros((rows, 65), np.int32), np.zeros((rows, 65), np.float32)

    def seconds(self) -> float:
        """Processor time of one run."""
        begun = time.thread_time()
        self._program.run(*self._step.arrays, *self._top)
        return time.thread_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4, 48])
    parser.add_argument("--columns", type=int, default=1024, help="a multiple of 64")
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--kinds", nargs="+", default=KINDS, help="beside bfloat16, which is always one")
    asked = parser.parse_args()
    kinds = dict.fromkeys((KINDS[0], *asked.kinds))
    for rows in asked.rows:
        linears = {kind: Linear(kind, rows, asked.columns, asked.depth) for kind in kinds}
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(asked.rounds):
            for kind, linear in linears.items():
                times[kind].append(linear.seconds() * 1e3)
        of_bfloat16 = statistics.median(times["bfloat16"])
        print(f"{rows} rows, {asked.columns} x {asked.depth}")
        for kind, found in times.items():
            median = statistics.median(found)
            spread = f"({min(found):.2f} to {max(found):.2f})"
            print(f"  {linears[kind].kernel:<26} {median:7.2f} ms {spread:<18} {median / of_bfloat16:.2f} of bfloat16")


if __name__ == "__main__":
    main()
