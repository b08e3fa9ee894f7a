"""Stub of the compiled extension (built from csrc/). Imported by backends/cpu only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TOP_MOST: int
BUCKET_ROWS: list[int]
RANK_BLOCK: int
MAX_ADAPTER_TARGETS: int

def isa_levels() -> list[str]: ...
def known_levels() -> list[str]: ...
def refused_levels() -> dict[str, str]: ...
def amx_refusal() -> str: ...
def first_difference(level: str, trusted: str) -> str: ...
def attention_difference(level: str, trusted: str, bound: float = ...) -> str: ...
def name_lost_pages() -> None: ...
def usable_cpus() -> list[int]: ...
def kernels() -> list[tuple[str, str, str]]: ...
def default_tuning() -> dict[str, int]: ...
def revision(family: str) -> int: ...
def panel_bytes(dtype: str, k: int) -> int: ...
def token_row_bytes(k: int) -> int: ...
def pack_rounded(pool: ThreadPool, rows: NDArray[np.uint64], k: int, source: str, target: str, out: int) -> int: ...
def packs_blocks(type: int, k: int, target: str) -> bool: ...
def pack_blocks(
    pool: ThreadPool, rows: NDArray[np.uint64], types: NDArray[np.uint8], k: int, target: str, out: int
) -> int: ...
def pack_encoded(
    pool: ThreadPool,
    codes: NDArray[np.uint64],
    scale: NDArray[np.uint64],
    zero: NDArray[np.uint64],
    gamma: NDArray[np.uint64],
    offset: NDArray[np.uint64],
    k: int,
    target: str,
    out: int,
) -> None: ...
def block_bytes(
    dtype: str, num_kv_heads: int, head_dim: int, block_size: int, has_values: bool, every: int = 1
) -> int: ...
def pack(
    pool: ThreadPool,
    rows: NDArray[np.uint64],
    k: int,
    source: str,
    target: str,
    out: int,
    panels: bool,
    wide: bool = True,
) -> None: ...
def draw_tokens(
    pool: ThreadPool | None,
    level: str,
    rows: NDArray[np.uint64],
    sizes: NDArray[np.int64],
    settings: NDArray[np.float64],
    tokens: NDArray[np.int32],
) -> None: ...
def kept_tokens(
    level: str,
    row: NDArray[np.float32],
    settings: NDArray[np.float64],
    ids: NDArray[np.int32],
    weights: NDArray[np.float64],
) -> int: ...
def log_rows(
    pool: ThreadPool | None,
    level: str,
    rows: NDArray[np.uint64],
    n: int,
    peaks: NDArray[np.float64],
    named: NDArray[np.int32],
    totals: NDArray[np.float64],
    best: NDArray[np.int32],
    above: NDArray[np.int64],
) -> None: ...
def copy(to: int, source: int, num_bytes: int) -> None: ...
def probe_read(pool: ThreadPool, memory: Memory) -> float: ...
def probe_dot(pool: ThreadPool, kind: str, iterations: int) -> float: ...
def adapter_bytes(
    targets: Sequence[tuple[int, int]], slots: int, max_rank: int, k: int, gated: bool, leaves: int = 1
) -> int: ...

class LinearAdapters:
    def __init__(
        self, targets: Sequence[tuple[int, int]], slots: int, max_rank: int, k: int, gated: bool, leaves: int = 1
    ) -> None: ...
    @property
    def address(self) -> int: ...
    def clear(self, slot: int) -> None: ...
    def put(self, slot: int, target: int, a: NDArray[np.float32], b: NDArray[np.float32]) -> None: ...

class Memory:
    def __init__(self, num_bytes: int) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def num_bytes(self) -> int: ...
    def map(self, fd: int, source: int, target: int, num_bytes: int) -> None: ...
    def take_in_turn(self, nodes: Sequence[int]) -> bool: ...
    def view(self) -> NDArray[np.uint8]: ...

class ThreadPool:
    def __init__(self, cpus: Sequence[int]) -> None: ...
    @property
    def size(self) -> int: ...
    @property
    def cpus(self) -> list[int]: ...

def take_pages(
    pool: ThreadPool, memory: Memory, spans: Sequence[tuple[int, int]], first: int, threads: int
) -> None: ...

class Program:
    def __init__(self, pool: ThreadPool, max_top_rows: int, threads: int = 0) -> None: ...
    def add(
        self, family: str, isa: str, dtype: str, args: dict[str, Any], tunings: list[dict[str, int]] = ...
    ) -> None: ...
    def run(
        self,
        token_ids: NDArray[np.int32],
        positions: NDArray[np.int32],
        slots: NDArray[np.int32],
        query_start: NDArray[np.int32],
        context_len: NDArray[np.int32],
        block_table: NDArray[np.int32],
        logit_rows: NDArray[np.int32],
        top_rows: NDArray[np.int32],
        top_counts: NDArray[np.int32],
        top_ids: NDArray[np.int32],
        top_values: NDArray[np.float32],
        adapter_slots: NDArray[np.int32] | None = None,
        state_slots: NDArray[np.int32] | None = None,
        snapshot_slots: NDArray[np.int32] | None = None,
        snapshot_rows: NDArray[np.int32] | None = None,
        token_types: NDArray[np.int32] | None = None,
        given: list[NDArray[np.float32]] = ...,
        given_rows: NDArray[np.int32] | None = None,
        rope_rows: NDArray[np.float32] | None = None,
        row_ends: NDArray[np.int32] | None = None,
        rope_positions: NDArray[np.int32] | None = None,
    ) -> None: ...
    def profile(self, on: bool) -> list[float]: ...
    def retune(self, tunings: list[dict[str, int]]) -> None: ...
    def last_tuning(self, call: int) -> dict[str, int]: ...
    @property
    def parts(self) -> list[int]: ...
    @property
    def groups(self) -> list[list[int]]: ...
    @property
    def scratch_bytes(self) -> int: ...

class Group:
    def __init__(self, ranks: Sequence[Program]) -> None: ...
    def run(
        self,
        token_ids: NDArray[np.int32],
        positions: NDArray[np.int32],
        slots: NDArray[np.int32],
        query_start: NDArray[np.int32],
        context_len: NDArray[np.int32],
        block_table: NDArray[np.int32],
        logit_rows: NDArray[np.int32],
        top_rows: NDArray[np.int32],
        top_counts: NDArray[np.int32],
        top_ids: Sequence[NDArray[np.int32]],
        top_values: Sequence[NDArray[np.float32]],
        adapter_slots: NDArray[np.int32] | None = None,
        state_slots: NDArray[np.int32] | None = None,
        snapshot_slots: NDArray[np.int32] | None = None,
        snapshot_rows: NDArray[np.int32] | None = None,
    ) -> None: ...
