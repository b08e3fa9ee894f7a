"""One native kernel at a time, on guarded arrays: layouts written out in numpy, tolerances computed from operands.

Used by the tests of this folder. The layouts of panels and of the KV cache are written here a second time, from their
description (graph/program.py, csrc/include/albireo/types.h), so that a kernel and its packing cannot be wrong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo import _native
from albireo.backends.cpu.machine import LEVELS, isa_levels, thread_pool
from albireo.backends.reference.rounding import bfloat16_bits, from_bfloat16_bits, round_to, scaled_codes
from albireo.backends.step_inputs import StepInputs
from albireo.dtypes import COMPUTE_DTYPES, KV_CODES, itemsize

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PANEL = 64
SUB_PANEL = 16
HALF_PANEL = 32
#: Unit roundoff: the largest relative error of one rounding to nearest.
ROUNDOFF = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
#: Half the smallest positive number; bfloat16 hardware flushes what is below the normal range.
UNDERFLOW = {"float32": 2.0**-126, "float16": 2.0**-25, "bfloat16": 2.0**-126}
#: A tolerance above this part of the result's norm would prove nothing.
AT_MOST = {"float32": 3e-4, "float16": 1.5e-3, "bfloat16": 1e-2}
_STORAGE = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16, "uint8": np.uint8}
_GUARD_BYTES = 512
_GUARD = 0xFF  # a NaN in every type


def variants(family: str) -> list[tuple[str, str]]:
    """(dtype, level) of every variant of a family, for weights that are numbers, that this machine can run."""
    levels = isa_levels()
    return [
        (dtype, level)
        for name, kind, level in _native.kernels()
        if name == family and level in levels and kind not in ("integers", "fp8")
        for dtype in (COMPUTE_DTYPES if kind == "any" else (kind,))
    ]


def level_of(family: str, level: str, kind: str = "any") -> str:
    """The level whose kernels of a family a program of this level has: its own, or the next lower one's."""
    known = {lvl for name, of, lvl in _native.kernels() if name == family and of in ("any", kind)}
    return next(lvl for lvl in LEVELS[LEVELS.index(level) :] if lvl in known)


@cache
def pool(threads: int = 1) -> _native.ThreadPool:
    return thread_pool(threads)


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> F32:
    """Standard normal numbers that dtype can hold."""
    return round_to(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def hard_to_round() -> F32:
    """Every upper half of a float32 with lower halves around the middle, and the middles of float16 with neighbours."""
    upper = np.arange(2**16, dtype=np.uint32) << np.uint32(16)
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    patterns = (upper[:, None] | lower).reshape(-1).view(np.float32)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    middles = ((halves[:-1] + halves[1:]) / 2).astype(np.float32)
    middles = np.append(middles, np.float32(65520))
    around = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([patterns, *(sign * m for m in (middles, *around) for sign in (1, -1))]).astype(np.float32)


def encode(x: Array, dtype: str) -> Array:
    """Numbers that dtype can hold, as they are stored."""
    x = np.asarray(x, np.float32)
    return bfloat16_bits(x) if dtype == "bfloat16" else x.astype(_STORAGE[dtype])


def decode(stored: Array, dtype: str) -> F32:
    """Stored numbers as float32."""
    return from_bfloat16_bits(stored) if dtype == "bfloat16" else stored.astype(np.float32)


class Guarded:
    """An array in memory whose neighbourhood, on both sides, is NaN and is looked after."""

    def __init__(self, values: Array | Sequence[float], dtype: str = "float32") -> None:
        stored = np.ascontiguousarray(encode(np.asarray(values), dtype))
        self.dtype, self.shape = dtype, stored.shape
        self._bytes = np.full(stored.nbytes + 2 * _GUARD_BYTES + 64, _GUARD, np.uint8)
        self._start = _GUARD_BYTES + -(self._bytes.ctypes.data + _GUARD_BYTES) % 64
        self._inside = slice(self._start, self._start + stored.nbytes)
        self._bytes[self._inside] = stored.view(np.uint8).reshape(-1)
        self._before = self._bytes.copy()

    @classmethod
    def poisoned(cls, shape: tuple[int, ...], dtype: str = "float32") -> Guarded:
        """Room for a result; what is not written stays NaN."""
        return cls(np.full(shape, np.nan, np.float32), dtype)

    @property
    def address(self) -> int:
        return int(self._bytes.ctypes.data) + self._start

    @property
    def stored(self) -> Array:
        """What is there, as stored."""
        kind: Any = _STORAGE[self.dtype]
        found: Array = self._bytes[self._inside].view(kind).reshape(self.shape).copy()
        return found

    @property
    def values(self) -> F32:
        """What is there, as float32, after a look at the guards."""
        self.check_guards()
        return decode(self.stored, self.dtype)

    def check_guards(self) -> None:
        outside = np.ones(len(self._bytes), bool)
        outside[self._inside] = False
        assert np.array_equal(self._bytes[outside], self._before[outside]), "written past the ends"

    def check_unchanged(self) -> None:
        assert np.array_equal(self._bytes, self._before), "an input was written to"


def panels(w: F32, dtype: str) -> Guarded:
    """[N, K] -> sub-panels of 16 rows: [N/16][K][16], bfloat16 [N/16][K/2][16][2]; N is padded to 64 with zeros."""
    step = 2 if dtype == "bfloat16" else 1
    n, k = w.shape
    padded = np.zeros((-(-n // PANEL) * PANEL, -(-k // step) * step), np.float32)
    padded[:n, :k] = w
    cut = padded.reshape(-1, SUB_PANEL, padded.shape[1] // step, step)
    return Guarded(cut.transpose(0, 2, 1, 3), dtype)


def interleave(gate: Array, up: Array) -> Array:
    """Rows of gate and up, 32 in turn, each padded with zeros to whole halves."""
    pad = -len(gate) % HALF_PANEL
    halves = [np.concatenate([a, np.zeros((pad, *a.shape[1:]), a.dtype)]) for a in (gate, up)]
    cut = [a.reshape(-1, HALF_PANEL, *a.shape[1:]) for a in halves]
    return np.stack(cut, axis=1).reshape(-1, *gate.shape[1:])


# -- steps and calls ---------------------------------------------------------------------------------------------------


def ints(values: object) -> NDArray[np.int32]:
    return np.ascontiguousarray(values, np.int32)


def rows_step(
    rows: int, token_ids: object = None, logit_rows: object = (), top_rows: object = (), **more: Any
) -> StepInputs:
    """A step of rows tokens of one sequence, for kernels that look at no more than that."""
    count = np.arange(rows)
    return StepInputs(
        token_ids=ints(count * 0 if token_ids is None else token_ids),
        positions=ints(count),
        slots=ints(count),
        query_start=ints([0, rows]),
        context_len=ints([rows]),
        block_table=ints([[0]]),
        logit_rows=ints(logit_rows),
        top_rows=ints(top_rows),
        **more,
    )


@dataclass(frozen=True)
class Call:
    """A call of a family at a level; arrays go in as Guarded, numbers and names as they are."""

    family: str
    level: str
    dtype: str
    args: dict[str, Any]


def run(calls: Sequence[Call], step: StepInputs, threads: int = 1) -> tuple[Array, Array]:
    """Run calls as one program. Returns: top_ids and top_values, which only head_top fills."""
    program = _native.Program(pool(threads), len(step.top_rows))
    for call in calls:
        args = {name: value.address if isinstance(value, Guarded) else value for name, value in call.args.items()}
        program.add(call.family, call.level, call.dtype, args)
    shape = (len(step.top_rows), _native.TOP_MOST)
    top_ids, top_values = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    program.run(
        step.token_ids,
        step.positions,
        step.slots,
        step.query_start,
        step.context_len,
        step.block_table,
        step.logit_rows,
        step.top_rows,
        step.top_counts,
        top_ids,
        top_values,
        step.adapter_slots,
        step.state_slots,
        step.snapshot_slots,
        step.snapshot_rows,
        given=list(step.given),
        given_rows=step.given_rows,
        row_ends=step.row_ends,
    )
    _check_memory(calls)
    return top_ids, top_values


def _check_memory(calls: Sequence[Call]) -> None:
    """Nothing is written but results, and nothing beyond their ends."""
    arrays = [(name, value) for call in calls for name, value in call.args.items() if isinstance(value, Guarded)]
    written = [value for name, value in arrays if name in ("out", "kv", "state")]
    for _, value in arrays:
        value.check_guards()
        if not any(value is other for other in written):
            value.check_unchanged()


# -- the KV cache ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KVShape:
    """Shape of one layer's cache."""

    dtype: str
    num_kv_heads: int
    head_dim: int
    block_size: int = 16
    has_values: bool = True

    @property
    def num_bytes(self) -> int:
        """Of a block, as the native core says."""
        return _native.block_bytes(self.dtype, self.num_kv_heads, self.head_dim, self.block_size, self.has_values)

    @property
    def padded(self) -> int:
        return -(-self.head_dim // 16) * 16

    @property
    def args(self) -> dict[str, Any]:
        return {
            "kv_dtype": self.dtype,
            "num_kv_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "block_size": self.block_size,
            "has_values": self.has_values,
        }


class CodeCache:
    """One layer's KV cache of codes; every byte, the scales' too, is that of a NaN until it is written."""

    def __init__(self, shape: KVShape, num_blocks: int) -> None:
        self.shape, self.num_blocks = shape, num_blocks
        sub = min(shape.block_size, 16)
        self._codes = np.full(
            (num_blocks, shape.num_kv_heads, shape.block_size // sub, 2, sub, shape.padded), 0xFF, np.uint8
        )
        self._scales = np.full(self._codes.shape[:-1], np.nan, np.float32)
        self._memory: Guarded | None = None

    def fill(self, slots: Array, k: F32, v: F32) -> None:
        """Put k and v [n, heads, head_dim] into slots as kv_write does: rounded, the padding zero."""
        sub = min(self.shape.block_size, 16)
        block, offset = slots // self.shape.block_size, slots % self.shape.block_size
        for i, x in enumerate((k, v)):
            codes, scales = scaled_codes(x, self.shape.dtype)
            self._codes[block, :, offset // sub, i, offset % sub] = 0
            self._codes[block, :, offset // sub, i, offset % sub, : self.shape.head_dim] = code_bytes(
                codes, self.shape.dtype
            )
            self._scales[block, :, offset // sub, i, offset % sub] = scales[..., 0]
        self._memory = None

    @property
    def memory(self) -> Guarded:
        """As it is until something else is put into slots."""
        if self._memory is None:
            self._memory = self._laid_out()
        return self._memory

    def _laid_out(self) -> Guarded:
        lead, sub, width = self._codes.shape[:3], *self._codes.shape[4:]
        k = self._codes[..., 0, :, :].reshape(*lead, sub, width // 2, 2).transpose(0, 1, 2, 4, 3, 5)
        v = self._codes[..., 1, :, :].reshape(*lead, sub // 2, 2, width).transpose(0, 1, 2, 3, 5, 4)
        scales = np.ascontiguousarray(self._scales).view(np.uint8).reshape(*lead, -1)
        parts = [k.reshape(*lead, -1), v.reshape(*lead, -1), scales]
        stored = np.concatenate(parts, axis=-1).reshape(self.num_blocks, -1)
        assert stored.shape[1] == self.shape.num_bytes
        return Guarded(stored, "uint8")


def code_bytes(codes: F32, dtype: str) -> NDArray[np.uint8]:
    """Numbers that have a code, as they are stored."""
    if dtype == "int8":
        return codes.astype(np.int8).view(np.uint8)
    bits = (
        np.ascontiguousarray(np.abs(codes) / 256, np.float16).view(np.uint16) >> 7
    )  # e4m3 is a float16 of another bias
    return (bits | np.signbit(codes) * np.uint16(0x80)).astype(np.uint8)


def cache_of(shape: KVShape, num_blocks: int) -> Cache | CodeCache:
    return (CodeCache if shape.dtype in KV_CODES else Cache)(shape, num_blocks)


class Cache:
    """One layer's KV cache, every slot NaN until it is written; of keys alone v is k."""

    def __init__(self, shape: KVShape, num_blocks: int) -> None:
        self.shape, self.num_blocks = shape, num_blocks
        elements, self._parts = shape.num_bytes // itemsize(shape.dtype), 2 if shape.has_values else 1
        assert elements == self._parts * shape.num_kv_heads * shape.block_size * shape.padded
        self.memory = Guarded.poisoned((num_blocks, elements), shape.dtype)

    def logical(self) -> tuple[F32, F32]:
        """K and V [slots, heads, padded head_dim] as float32."""
        s, sub, width = self.shape, min(self.shape.block_size, 16), self.shape.padded
        lead = (self.num_blocks, s.num_kv_heads, s.block_size // sub)
        parts = self.memory.values.reshape(*lead, self._parts, sub * width)
        k, v = parts[:, :, :, 0], parts[:, :, :, -1]
        if s.dtype == "bfloat16":
            k = k.reshape(*lead, width // 2, sub, 2).transpose(0, 1, 2, 4, 3, 5)
            v = v.reshape(*lead, sub // 2, width, 2).transpose(0, 1, 2, 3, 5, 4)
        else:
            k = k.reshape(*lead, width, sub).transpose(0, 1, 2, 4, 3)
        heads_first = (self.num_blocks, s.num_kv_heads, s.block_size, width)
        k, v = (a.reshape(heads_first).transpose(0, 2, 1, 3).reshape(-1, s.num_kv_heads, width) for a in (k, v))
        return k, v

    def fill(self, slots: Array, k: F32, v: F32) -> None:
        """Put k and v [n, heads, head_dim] into slots as qkv_rope_kv does: the padding zero, and with bfloat16 the odd
        half of a pair of V zero while it has no value of its own."""
        s = self.shape
        keys, values = self.logical()
        for array, new in ((keys, k), (values, v))[: self._parts]:
            array[slots, :, : s.head_dim] = new
            array[slots, :, s.head_dim :] = 0
        if s.dtype == "bfloat16" and s.has_values:
            alone = np.setdiff1d(slots[slots % 2 == 0] + 1, slots)
            values[alone] = 0
        self.memory = Guarded(self._physical(keys, values), s.dtype)

    def _physical(self, keys: F32, values: F32) -> F32:
        s, sub = self.shape, min(self.shape.block_size, 16)
        lead = (self.num_blocks, s.block_size // sub, sub, s.num_kv_heads, s.padded)
        k, v = (a.reshape(lead).transpose(0, 3, 1, 2, 4) for a in (keys, values))
        head = k.shape[:3]
        if s.dtype == "bfloat16":
            k = k.reshape(*head, sub, s.padded // 2, 2).transpose(0, 1, 2, 4, 3, 5)
            v = v.reshape(*head, sub // 2, 2, s.padded).transpose(0, 1, 2, 3, 5, 4)
        else:
            k = k.transpose(0, 1, 2, 4, 3)
        parts = (k, v)[: self._parts]
        return np.stack([a.reshape(*head, sub * s.padded) for a in parts], axis=3).reshape(self.num_blocks, -1)


# -- comparing ---------------------------------------------------------------------------------------------------------


def chain_error(terms: int, magnitude: Array) -> Array:
    """What a float32 sum of so many products may be off by: 4 sqrt(n) u times the sum of their absolute values.

    Source: Higham & Mary 2019, probabilistic rounding analysis; the certain bound has n for sqrt(n).
    """
    return np.asarray(4 * np.sqrt(terms + 4) * ROUNDOFF["float32"] * magnitude)


def assert_close(ours: F32, exact: Array, error: Array, out_dtype: str, at_most: float | None = None) -> None:
    """|ours - exact| is within error and one rounding to out_dtype; and that is little enough to prove something.

    at_most: the part of exact's norm that the norm of the allowance may reach.
    """
    assert ours.shape == exact.shape
    allowed = error + ROUNDOFF[out_dtype] * (np.abs(exact) + error) + UNDERFLOW[out_dtype]
    part = np.linalg.norm(allowed) / np.linalg.norm(exact)
    limit = AT_MOST[out_dtype] if at_most is None else at_most
    assert part <= limit, f"the tolerance is {part:.1e} of the result, more than {limit:.1e}: it proves nothing"
    off = np.abs(ours.astype(np.float64) - exact)
    wrong = ~(off <= allowed)
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(wrong, off / allowed, 0)), off.shape)
        where = tuple(int(i) for i in worst)
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} are off; at {where}: {ours[where]} for {exact[where]}, "
            f"allowed {allowed[where]:.3e}; NaN: {int(np.isnan(ours).sum())}"
        )


def assert_same_bits(a: Array, b: Array, what: str = "") -> None:
    """Equal to the last bit, NaN included."""
    assert a.dtype == b.dtype and a.shape == b.shape, f"{what}: {a.dtype}{a.shape} is not {b.dtype}{b.shape}"
    x, y = (np.ascontiguousarray(v).view(np.dtype(f"u{v.dtype.itemsize}")) for v in (a, b))
    if not np.array_equal(x, y):
        where = tuple(int(i) for i in np.argwhere(x != y)[0])
        raise AssertionError(
            f"{what}: {int((x != y).sum())} of {x.size} differ, first at {where}: {a[where]} {b[where]}"
        )
