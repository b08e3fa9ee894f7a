"""Tuning tables for tests: entries for every call of a program, and the user's cache in a folder of the test's own.

Used by the tests of several rooms.
"""

from __future__ import annotations

from albireo.api.machine.tuning import fingerprint
from albireo.backends.cpu.machine import kernel_revision
from albireo.compiler.tuning_table import call_key
from albireo.graph.program import Program
from albireo.graph.tuning import BUCKETS, Entry, Fingerprint, Tuning, TuningTable

HERE = Fingerprint("0.1.0", "AMD EPYC, family 26", "L1d 48K, L2 1024K", "avx2 scalar", 2)
CHANGED = Tuning(tall_rows=6, fetch_bytes=8192, block_steps=256, slab_rows=96, claims=32, one_queue=1)


def entries_for(program: Program, tuning: Tuning = CHANGED) -> tuple[Entry, ...]:
    """One for each kind of call and bucket."""
    keys = dict.fromkeys(key for call in program.calls if (key := call_key(program, call)) is not None)
    return tuple(
        Entry(key, kernel_revision(key.family), bucket, tuning, 2e-3, 1.5e-3, 0.02, 5)
        for key in keys
        for bucket in range(len(BUCKETS))
    )


def table_for(program: Program, tuning: Tuning = CHANGED, num_threads: int | None = 1) -> TuningTable:
    """As if measured on this machine."""
    return TuningTable(fingerprint(num_threads), entries_for(program, tuning))
