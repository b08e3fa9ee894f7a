"""adapter, and what linear adds for it, at every level: against numpy float64, and bit by bit against plain linears."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from albireo import _native
from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.dtypes import TOKEN
from backends.cpu.encoded_linears import tokens
from backends.cpu.harness import (
    F32,
    Call,
    Guarded,
    assert_same_bits,
    interleave,
    ints,
    level_of,
    normal,
    panels,
    rows_step,
    run,
    variants,
)

MAX_RANK = 8
NUM_SLOTS = 3
#: Ends of the targets' columns: within a vector, within a panel, at the end of one.
SHAPES = [(9, (20, 80), 37), (5, (64, 129), 64), (13, (16, 48, 90), 130), (1, (7,), 1)]
#: Of each row: none, side by side, in blocks of four, one after another.
SLOTS = [0, 0, 0, 0, -1, 2, 1, -1, 2, 2, 2, 2, 1]


class Adapters:
    """Random adapters in every slot; the second leaves the first target as it is."""

    def __init__(self, ends: tuple[int, ...], k: int, gated: bool = False) -> None:
        self.targets = list(zip((0, *ends), ends, strict=False))
        self.native = _native.LinearAdapters(self.targets, NUM_SLOTS, MAX_RANK, k, gated)
        self.known: dict[tuple[int, int], tuple[F32, F32]] = {}
        for slot in range(NUM_SLOTS):
            for target, (first, end) in enumerate(self.targets):
                if (slot, target) != (1, 0):
                    self.put(slot, target, (5, 8, 3)[slot], end - first, k)

    def put(self, slot: int, target: int, rank: int, columns: int, k: int) -> None:
        seed = 10 * slot + target
        pair = normal(rank, k, seed=seed) / np.float32(k**0.5), normal(columns, rank, seed=seed + 100)
        self.known[slot, target] = pair
        self.native.put(slot, target, *pair)

    def added(self, x: F32, slots: list[int]) -> Any:
        """[rows, columns] float64"""
        found = np.zeros((len(x), self.targets[-1][1]))
        for row, slot in enumerate(slots):
            for target, (first, end) in enumerate(self.targets):
                if (slot, target) in self.known:
                    a, b = (each.astype(np.float64) for each in self.known[slot, target])
                    found[row, first:end] = b @ (a @ x[row].astype(np.float64))
        return found


def with_adapters(
    x: F32, weight: Guarded, n: int, dtype: str, level: str, adapters: Adapters, slots: list[int], **args: Any
) -> Guarded:
    """Run adapter, then linear, on memory that holds NaN wherever nothing was written."""
    given, out = Guarded(x, dtype), Guarded.poisoned((len(x), n))
    k, width = x.shape[1], len(adapters.targets) * MAX_RANK
    low = Guarded.poisoned((len(x), width))
    shared = {"x": given, "x_dtype": dtype, "adapters": adapters.native.address}
    first = Call("adapter", level_of("adapter", level), dtype, {**shared, "out": low})
    numbers = {"n": n, "k": k, "w_dtype": dtype, "low_stride": width}
    second = Call("linear", level, dtype, {**shared, "weight": weight, "out": out, **numbers, **args, "low": low})
    step = replace(rows_step(len(x)), adapter_slots=ints(slots))
    run([first, second], step, threads=2)
    return out


def plain(x: F32, weight: Guarded, n: int, dtype: str, level: str, **args: Any) -> Guarded:
    given, out = Guarded(x, dtype), Guarded.poisoned((len(x), n))
    numbers = {"n": n, "k": x.shape[1], "w_dtype": dtype, "x_dtype": dtype}
    run(
        [Call("linear", level, dtype, {"x": given, "weight": weight, "out": out, **numbers, **args})], rows_step(len(x))
    )
    return out


@pytest.mark.parametrize(("dtype", "level"), variants("linear"))
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_get_what_their_adapter_adds_and_no_other_is_touched(
    dtype: str, level: str, shape: tuple[int, tuple[int, ...], int]
) -> None:
    m, ends, k = shape
    n, slots = ends[-1], SLOTS[:m]
    x, w, bias = normal(m, k, seed=1, dtype=dtype), normal(n, k, seed=2, dtype=dtype), normal(256, seed=3)
    adapters, weight = Adapters(ends, k), panels(w, dtype)
    got = with_adapters(x, weight, n, dtype, level, adapters, slots, bias=Guarded(bias))
    without = plain(x, weight, n, dtype, level, bias=Guarded(bias))
    for row, slot in enumerate(slots):
        if slot < 0:
            assert_same_bits(got.values[row], without.values[row])
    if m > 6:  # slot 1 has nothing for the first target
        assert_same_bits(got.values[6, : ends[0]], without.values[6, : ends[0]])
    wanted = without.values.astype(np.float64) + adapters.added(x, slots)
    assert np.abs(got.values - wanted).max() < 1e-4 * np.abs(wanted).max()
    for row in range(m):  # alone, as in a batch
        alone = with_adapters(
            x[row : row + 1], weight, n, dtype, level, adapters, slots[row : row + 1], bias=Guarded(bias)
        )
        assert_same_bits(alone.values[0], got.values[row])


@pytest.mark.parametrize(("dtype", "level"), variants("linear"))
@pytest.mark.parametrize("n", [40, 64])
def test_gate_and_up_have_their_own_before_they_are_multiplied(dtype: str, level: str, n: int) -> None:
    m, k = 9, 50
    x, w = normal(m, k, seed=1, dtype=dtype), normal(2 * n, k, seed=2, dtype=dtype)
    adapters, slots = Adapters((n, 2 * n), k, gated=True), SLOTS[:m]
    weight = panels(interleave(w[:n], w[n:]), dtype)
    got = with_adapters(x, weight, n, dtype, level, adapters, slots, act=1).values
    without = plain(x, weight, n, dtype, level, act=1).values
    both = x.astype(np.float64) @ w.astype(np.float64).T + adapters.added(x, slots)
    gate, up = both[:, :n], both[:, n:]
    wanted = gate / (1 + np.exp(-gate)) * up
    tolerance = 2e-3 if dtype == "bfloat16" and level in ("avx512bf16", "neonmm") else 1e-4
    assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()
    for row, slot in enumerate(slots):
        if slot < 0:
            assert_same_bits(got[row], without[row])


@pytest.mark.parametrize("level", [level for level in isa_levels() if level == level_of("adapter", level)])
def test_activations_of_8_bits_are_read_as_the_linear_reads_them(level: str) -> None:
    m, k, ends = 6, 70, (30, 64)
    x = normal(m, k, seed=4)
    rows = tokens(x, level)
    codes = rows[:, :k].view(np.int8).astype(np.float32)
    scale = rows[:, 128:132].copy().view(np.float32)
    adapters, slots = Adapters(ends, k), [0, -1, 2, 2, 1, 0]
    low = Guarded.poisoned((m, 2 * MAX_RANK))
    args = {"x": rows.ctypes.data, "x_stride": rows.shape[1], "x_dtype": TOKEN, "adapters": adapters.native.address}
    run([Call("adapter", level, TOKEN, {**args, "out": low})], replace(rows_step(m), adapter_slots=ints(slots)))
    for row, slot in enumerate(slots):
        for target in range(2):
            found = low.values[row, target * MAX_RANK :][:MAX_RANK]
            if (slot, target) not in adapters.known:
                assert np.isnan(found).all(), "nothing is written for who has none"
                continue
            a, _ = adapters.known[slot, target]
            wanted = a.astype(np.float64) @ (codes[row].astype(np.float64) * float(scale[row, 0]))
            assert np.abs(found[: len(a)] - wanted).max() < 1e-4 and np.isnan(found[len(a) :]).all()


def test_slots_that_there_are_not_are_refused() -> None:
    adapters = Adapters((8,), 4)
    x, low = Guarded(normal(2, 4)), Guarded.poisoned((2, MAX_RANK))
    call = Call("adapter", "scalar", "float32", {"x": x, "out": low, "adapters": adapters.native.address})
    for slots in ([0, 3], [-2, 0], [0], None):
        step = rows_step(2) if slots is None else replace(rows_step(2), adapter_slots=ints(slots))
        with pytest.raises(ValueError, match="slot"):
            run([call], step)
    for shape in (((8, 5), (8, 8)), ((9, 4), (8, 9)), ((2, 4), (7, 2)), ((2, 4), (8, 3))):
        a, b = (np.zeros(each, np.float32) for each in shape)
        with pytest.raises(ValueError, match="do not fit"):
            adapters.native.put(0, 0, a, b)
    for slot, target in ((3, 0), (-1, 0), (0, 1)):
        with pytest.raises(ValueError, match="no such slot"):
            adapters.native.put(slot, target, np.zeros((1, 4), np.float32), np.zeros((8, 1), np.float32))
    assert thread_pool(1).size == 1
