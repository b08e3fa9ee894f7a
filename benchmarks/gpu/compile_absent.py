"""Compiles what a model of random numbers launches, for a GPU that this process does not see: of compiled_ahead.py, and
of small_calls.py, whose programs it compiles where a family is named.

    compile_absent.py WEIGHTS|FAMILY KV CLAIMS MULTIPROCESSORS CAPABILITY PART PARTS

As a process of api/machine/compile_ahead.py does, into the cache that TRITON_CACHE_DIR names; CLAIMS: see claims.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "src")]
MAXIMA, LONGEST, LAYERS = {"T": 8192, "R": 256, "G": 256}, 8192, 2


def main() -> None:
    import torch
    from families import FAMILIES
    from model import program_of
    from parts import small_calls
    from setup import Setup

    from albireo.backends.cuda.absent_gpu import AbsentGpu
    from albireo.backends.cuda.chip import Chip
    from albireo.backends.cuda.claims import claim_kernels
    from albireo.backends.cuda.compile_ahead import empty_model, launch_all

    weights, kv_dtype, claims, *numbers = sys.argv[1:]
    multiprocessors, capability, part, parts = map(int, numbers)
    AbsentGpu.take(Chip(multiprocessors, capability))
    claim_kernels(Path(claims))
    setup = Setup(torch.device("cpu"), False, float("inf"))
    if weights in FAMILIES:
        for family in small_calls.programs(setup, weights).values():
            launch_all(empty_model(family, small_calls.POSITIONS), part, parts)
        return
    program = program_of(setup, weights, MAXIMA, LONGEST, LAYERS, kv_dtype)
    launch_all(empty_model(program, LONGEST), part, parts)


if __name__ == "__main__":
    main()
