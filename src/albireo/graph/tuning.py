"""Tuning: the numbers of a call that change its speed and never a bit of its result; and the table that holds them.

Measured by tune/, written and read by artifact/, attached to calls by compiler/tuning_table.py, run by a backend. Plain
data. A number that would change bits (how a sum is cut or ordered) is no tuning and may never enter a table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

#: A call has one Tuning a bucket of rows: the least and the most rows of each; None: no limit.
BUCKETS: tuple[tuple[int, int | None], ...] = (
    (1, 1),
    (2, 8),
    (9, 28),
    (29, 64),
    (65, 128),
    (129, 512),
    (513, None),
)
BUCKET_NAMES = ("1", "2-8", "9-28", "29-64", "65-128", "129-512", "513+")

#: What a table may say: parameter -> its values. Every one of them gives the same bits, which tests run through.
ALLOWED: dict[str, tuple[int, ...]] = {
    "tall_rows": (0, 6, 12, 20, 28),
    "fetch_bytes": (4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 128 << 10),
    "block_steps": (256, 512, 1024, 2048, 4096),
    "slab_rows": (96, 192, 480, 960, 1920),
    "claims": (4, 8, 16, 32),
    "one_queue": (0, 1),
}

#: What tells one kind of call from another: family -> names in an Entry's shape.
SHAPES: dict[str, tuple[str, ...]] = {
    "linear": ("n", "k", "act"),
    "head_top": ("n", "k"),
    "qkv_rope_kv": ("num_heads", "num_kv_heads", "head_dim", "k"),
    "attention": ("num_heads", "num_kv_heads", "head_dim", "window"),
}


#: Rows of a product that are finished together: about so many, and at most; csrc/include/albireo/types.h.
ROW_CHUNK, MOST_CHUNK = 96, 112


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a call is computed when nothing was measured; the native core has the same defaults.

    Fields:
        tall_rows: most rows that pass a weight panel in one tall tile; more take wide tiles and K blocks.
        fetch_bytes: how far ahead a tall tile fetches weights.
        block_steps: steps of a K block of wide tiles; a step is two k in bfloat16, else one.
        slab_rows: rows of a work item.
        claims: a thread takes one of so many parts of what is left of its share.
        one_queue: 1: threads take turns at all items; 0: each has a contiguous share, then helps the others.
    """

    tall_rows: int = 28
    fetch_bytes: int = 8 << 10
    block_steps: int = 1024
    slab_rows: int = 480
    claims: int = 4
    one_queue: int = 0

    def changes(self, base: Tuning | None = None) -> dict[str, tuple[int, int]]:
        """Parameter -> its value in base (the defaults) and here, where they differ."""
        base = base or Tuning()
        pairs = {f.name: (getattr(base, f.name), getattr(self, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@dataclass(frozen=True, slots=True)
class CallKey:
    """A kind of call: what one measurement stands for. kernel: identity of the variant; shape: as SHAPES names it."""

    family: str
    kernel: str
    shape: tuple[tuple[str, int | str], ...]

    def __str__(self) -> str:
        values = dict(self.shape)
        if "n" in values:
            act = values.get("act", "none")
            return f"{self.family} {values['n']} x {values['k']}" + (f" {act}" if act != "none" else "")
        heads = f"{values['num_heads']}/{values['num_kv_heads']} heads of {values['head_dim']}"
        return f"{self.family} {heads}" + (f" window {values['window']}" if values.get("window") else "")


@dataclass(frozen=True, slots=True)
class Entry:
    """One measured choice.

    Fields:
        revision: of the family's kernels when it was measured; another one makes the entry worthless.
        bucket: index into BUCKETS.
        before_s, after_s: median seconds with the defaults and with tuning, in the same rounds; of as many calls as
            were measured at once, so only their ratio means something.
        spread: (slowest - fastest) / median of the rounds behind after_s.
        rounds: pairs behind the medians; where the defaults were kept, runs behind the least time, which is both.
    """

    key: CallKey
    revision: int
    bucket: int
    tuning: Tuning
    before_s: float
    after_s: float
    spread: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a measurement holds for: this program, on this processor, with so many threads."""

    albireo: str
    cpu: str
    caches: str
    isa_levels: str
    threads: int

    def differences(self, here: Fingerprint) -> str:
        """Where another machine differs, in words."""
        pairs = [(f.name, getattr(self, f.name), getattr(here, f.name)) for f in fields(self)]
        return ", ".join(f"{name} {mine} there and {other} here" for name, mine, other in pairs if mine != other)


@dataclass(frozen=True, slots=True)
class TuningTable:
    """Measured choices of one machine."""

    fingerprint: Fingerprint
    entries: tuple[Entry, ...] = ()

    def merged(self, newer: TuningTable) -> TuningTable:
        """Both tables' entries; newer wins where both have one."""
        found = {(e.key, e.bucket): e for e in (*self.entries, *newer.entries)}
        return TuningTable(newer.fingerprint, tuple(found.values()))


def bucket_of(rows: int) -> int:
    """Index into BUCKETS of a call over rows rows."""
    return next(i for i, (_, most) in enumerate(BUCKETS) if most is None or rows <= most)


def row_chunks(rows: int) -> tuple[int, ...]:
    """Rows of each chunk of so many: of equal height but the last; as csrc/include/albireo/split.h cuts them."""
    count = 1 if rows <= MOST_CHUNK else math.ceil(rows / ROW_CHUNK)
    height = math.ceil(rows / count)
    return tuple(min(height, rows - begin) for begin in range(0, rows, height))
