"""What there is to try: for each kind of call and number of rows, the values that change what is executed.

Called by session.py. Knows how kernels use the numbers (csrc/include/albireo/tuning.h); does not measure.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace

from albireo.graph.program import GATE_UP_INTERLEAVE, PANEL, is_gated
from albireo.graph.tuning import ALLOWED, CallKey, Tuning, row_chunks

#: Levels with tall tiles: where registers allow 28 rows.
_TALL_LEVELS = ("amx", "avx512bf16", "avx512vnni", "avx512")
#: Chunks of so many rows and more go through the tile registers of this level, where no number changes anything; of
#: bfloat16 and fp8 all, but that codes of fp8 are fetched ahead.
_MATRIX_LEVEL, _MATRIX_ROWS = "amx", 16
#: Parameters in the order they are tried: what decides most first, since later ones are tried on top of it.
_GEMM = ("tall_rows", "one_queue", "fetch_bytes", "block_steps", "slab_rows", "claims")
_ORDER = {"linear": _GEMM, "head_top": _GEMM, "qkv_rope_kv": _GEMM, "attention": ("one_queue", "claims")}


@dataclass(frozen=True, slots=True)
class Point:
    """One thing to tune: a kind of call, with the row counts that stand for a bucket."""

    key: CallKey
    bucket: int
    row_counts: tuple[int, ...]
    threads: int

    def parameters(self) -> tuple[str, ...]:
        """Names, in the order to try them."""
        return _ORDER[self.key.family]

    def candidates(self, name: str, current: Tuning) -> Iterator[Tuning]:
        """current with other values of one parameter, each of which makes the kernel do something else."""
        seen = {self.effect(current)}
        for value in ALLOWED[name]:
            candidate = replace(current, **{name: value})
            effect = self.effect(candidate)
            if effect not in seen:
                seen.add(effect)
                yield candidate

    def effect(self, tuning: Tuning) -> Hashable:
        """What is executed; tunings of equal effect need no comparison."""
        return tuple(self._effect(tuning, rows) for rows in self.row_counts)

    def _effect(self, tuning: Tuning, rows: int) -> Hashable:
        queue = tuning.one_queue if self.threads > 1 else 0
        if self.key.family == "attention":
            return queue, tuning.claims
        slabs = math.ceil(rows / tuning.slab_rows)
        shares = 1 if queue else self.threads
        claim = max(1, self._panels() * slabs // shares // (tuning.claims * (self.threads // shares)))
        tall_rows = tuning.tall_rows if self.key.kernel.endswith(_TALL_LEVELS) else 0
        chunks = set(row_chunks(rows))
        is_fetched = False
        if self.key.kernel.endswith(_MATRIX_LEVEL):
            is_fetched = self._dtype() == "fp8"
            least = 1 if self._dtype() in ("bfloat16", "fp8") else _MATRIX_ROWS
            chunks = {count for count in chunks if count < least}
        tall = frozenset(count for count in chunks if 0 < count <= tall_rows)
        is_wide = any(count > tall_rows for count in chunks)
        blocks = min(tuning.block_steps, self._steps()) if is_wide else 0
        fetch = tuning.fetch_bytes if tall or is_fetched else 0
        slab_rows = tuning.slab_rows if slabs > 1 else 0
        return queue, claim, tall, blocks, fetch, slab_rows

    def _steps(self) -> int:
        k = int(dict(self.key.shape)["k"])
        return math.ceil(k / 2) if self._dtype() == "bfloat16" else k

    def _dtype(self) -> str:
        return self.key.kernel.split(".")[1]

    def _panels(self) -> int:
        """Work items of one slab."""
        shape = dict(self.key.shape)
        if self.key.family == "qkv_rope_kv":
            head_dim = int(shape["head_dim"])
            columns = (int(shape["num_heads"]) + 2 * int(shape["num_kv_heads"])) * head_dim
            return math.ceil(columns / math.lcm(head_dim, PANEL))
        width = GATE_UP_INTERLEAVE if is_gated(str(shape.get("act", "none"))) else PANEL
        return math.ceil(int(shape["n"]) / width)
