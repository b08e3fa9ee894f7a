"""qkv_rope_kv at every level and weight type: q and the cache against numpy float64, and bit by bit against itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from backends.cpu.harness import (
    F32,
    F64,
    ROUNDOFF,
    Cache,
    Call,
    Guarded,
    KVShape,
    assert_close,
    assert_same_bits,
    chain_error,
    normal,
    panels,
    run,
    variants,
)
from step_batches import Work, make_step

VARIANTS = variants("qkv_rope_kv")
U = ROUNDOFF["float32"]
POSITIONS = 700


@dataclass(frozen=True)
class Heads:
    """Query heads, KV heads and head_dim; inner is the width of x."""

    queries: int
    keys: int
    dim: int
    inner: int = 37

    @property
    def columns(self) -> int:
        return (self.queries + 2 * self.keys) * self.dim

    def __str__(self) -> str:
        return f"{self.queries}/{self.keys}x{self.dim}"


ALL_HEADS = [
    Heads(3, 3, 2, 4),
    Heads(3, 1, 6),
    Heads(4, 1, 8),
    Heads(5, 5, 12, 1),
    Heads(6, 2, 20),
    Heads(3, 3, 64, 515),
    Heads(8, 1, 64),
    Heads(4, 2, 80),
    Heads(2, 1, 96, 130),
    Heads(7, 1, 128),
    Heads(1, 1, 130),
    Heads(2, 2, 256),
]
SLOW_HEADS = [Heads(4, 1, 8), Heads(6, 2, 20), Heads(2, 1, 80, 513)]
CASES = [(*v, heads) for v in VARIANTS for heads in (SLOW_HEADS if v[1] == "scalar" else ALL_HEADS)]


@dataclass(frozen=True)
class Problem:
    """Operands of one call."""

    heads: Heads
    x: F32
    w: F32
    bias: F32 | None
    norms: tuple[F32, F32] | None
    rope: F32


def problem(heads: Heads, rows: int, dtype: str, bias: bool = True, norm: bool = True) -> Problem:
    angles = np.arange(POSITIONS)[:, None] * 100.0 ** (-np.arange(heads.dim // 2) / heads.dim)
    return Problem(
        heads,
        normal(rows, heads.inner, dtype=dtype),
        normal(heads.columns, heads.inner, seed=1, dtype=dtype),
        normal(heads.columns, seed=2) if bias else None,
        (normal(heads.dim, seed=3), normal(heads.dim, seed=4)) if norm else None,
        np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),
    )


def write(p: Problem, step: StepInputs, cache: Cache, dtype: str, level: str, threads: int = 1) -> Guarded:
    """Run the call over all rows of p.x. Returns: q; k and v are in the cache then."""
    out = Guarded.poisoned((len(p.x), p.heads.queries * p.heads.dim), dtype)
    args: dict[str, Any] = {"x": Guarded(p.x, dtype), "weight": panels(p.w, dtype), "rope": Guarded(p.rope), "out": out}
    args |= {"kv": cache.memory, "n": p.heads.columns, "k": p.heads.inner, "num_heads": p.heads.queries, "eps": 1e-4}
    args |= {"x_dtype": dtype, "w_dtype": dtype, "out_dtype": dtype} | cache.shape.args
    if p.bias is not None:
        args["bias"] = Guarded(p.bias)
    if p.norms is not None:
        args["q_norm"], args["k_norm"] = Guarded(p.norms[0]), Guarded(p.norms[1])
    run([Call("qkv_rope_kv", level, dtype, args)], step, threads)
    return out


def exactly(p: Problem, positions: Sequence[int]) -> tuple[list[F64], list[F64]]:
    """q, k and v [T, heads, D] in float64, and what float32 may be off by."""
    x, w = p.x.astype(np.float64), p.w.astype(np.float64)
    y, error = x @ w.T, chain_error(p.heads.inner, np.abs(x) @ np.abs(w).T)
    if p.bias is not None:
        error, y = error + 2 * U * (np.abs(y) + np.abs(p.bias)), y + p.bias
    counts = np.cumsum([p.heads.queries, p.heads.keys])
    values = np.split(y.reshape(len(y), -1, p.heads.dim), counts, axis=1)
    errors = np.split(error.reshape(len(y), -1, p.heads.dim), counts, axis=1)
    cos, sin = (p.rope[list(positions), None, i].astype(np.float64) for i in (0, 1))
    for i in (0, 1):
        if p.norms is not None:
            values[i], errors[i] = _normalized(values[i], errors[i], p.norms[i].astype(np.float64))
        values[i], errors[i] = _rotated(values[i], errors[i], cos, sin)
    return values, errors


def _normalized(y: F64, error: F64, weight: F64) -> tuple[F64, F64]:
    factor = 1 / np.sqrt((y**2).mean(axis=-1, keepdims=True) + float(np.float32(1e-4)))
    relative = factor**2 * (np.abs(y) * error).mean(axis=-1, keepdims=True) + (np.sqrt(y.shape[-1]) + 8) * U
    out = y * factor * weight
    return out, np.abs(factor * weight) * error + np.abs(out) * relative


def _rotated(y: F64, error: F64, cos: F64, sin: F64) -> tuple[F64, F64]:
    (a, b), (ea, eb) = np.split(y, 2, axis=-1), np.split(error, 2, axis=-1)
    size = 3 * U * (np.abs(a) + np.abs(b))
    out = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    low, high = ea * np.abs(cos) + eb * np.abs(sin), eb * np.abs(cos) + ea * np.abs(sin)
    return out, np.concatenate([low + size, high + size], axis=-1)


def sequences(block_size: int) -> tuple[list[Work], int]:
    """One in the middle of its text, one new, one at its last token; blocks out of order. And how many blocks."""
    per = 32 // block_size
    blocks = np.random.default_rng(block_size).permutation(8 * per)[: 4 * per].tolist()
    starts = (0, 2 * per, 3 * per)
    return [
        Work([0] * 11, 22, blocks[: starts[1]]),
        Work([0] * 6, 0, blocks[starts[1] : starts[2]]),
        Work([0], 17, blocks[starts[2] :]),
    ], 8 * per


@pytest.mark.parametrize("options", ["plain", "bias", "norm", "both"])
@pytest.mark.parametrize(("dtype", "level", "heads"), CASES, ids=lambda v: str(v))
def test_q_and_cache(dtype: str, level: str, heads: Heads, options: str) -> None:
    block_size = (8, 16, 32, 16)[["plain", "bias", "norm", "both"].index(options)]
    work, num_blocks = sequences(block_size)
    step = make_step(work, block_size)
    step.check(block_size)
    p = problem(heads, step.num_tokens, dtype, options in ("bias", "both"), options in ("norm", "both"))
    cache = Cache(KVShape(dtype, heads.keys, heads.dim, block_size), num_blocks)
    q = write(p, step, cache, dtype, level)
    exact, errors = exactly(p, step.positions.tolist())
    assert_close(q.values.reshape(exact[0].shape), exact[0], errors[0], dtype)
    k, v = cache.logical()
    assert_close(k[step.slots, :, : heads.dim], exact[1], errors[1], dtype)
    assert_close(v[step.slots, :, : heads.dim], exact[2], errors[2], dtype)
    for array in (k, v):
        assert not array[step.slots, :, heads.dim :].any(), "channels that pad a head are zero"
    check_other_slots(dtype, step, k, v)


def check_other_slots(dtype: str, step: StepInputs, k: F32, v: F32) -> None:
    """Nothing else is written, but with bfloat16 the odd half of a pair of V that nobody fills."""
    others = np.setdiff1d(np.arange(len(k)), step.slots)
    assert np.isnan(k[others]).all()
    if dtype == "bfloat16":
        halves = np.setdiff1d(step.slots[step.slots % 2 == 0] + 1, step.slots)
        assert not v[halves].any()
        others = np.setdiff1d(others, halves)
    assert np.isnan(v[others]).all()


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_chunks_batches_and_threads_write_the_same(dtype: str, level: str) -> None:
    """One sequence whole; then in pieces, among another's rows, in blocks of other sizes, by three threads."""
    heads, length = Heads(3, 1, 20, 35), 45
    p = problem(heads, length, dtype)
    shape = KVShape(dtype, heads.keys, heads.dim)
    cache = Cache(shape, 4)
    whole_q = write(p, make_step([Work([0] * length, 0, [3, 0, 2])], 16), cache, dtype, level).stored
    slots = make_step([Work([0] * length, 0, [3, 0, 2])], 16).slots
    whole_k, whole_v = (a[slots] for a in cache.logical())
    for block_size, cuts, threads in [
        (16, [1, 2, 17, 18, 33], 3),
        (8, [7, 8, 31], 2),
        (32, [], 3),
        (8, range(1, 45), 1),
    ]:
        blocks = np.random.default_rng(block_size).permutation(8).tolist()
        cache = Cache(KVShape(dtype, heads.keys, heads.dim, block_size), 9)
        ends = [0, *cuts, length]
        for start, end in pairwise(ends):
            work = [Work([0] * 2, 0, [8]), Work([0] * (end - start), start, blocks)]
            part = Problem(heads, np.concatenate([p.x[:2], p.x[start:end]]), p.w, p.bias, p.norms, p.rope)
            q = write(part, make_step(work, block_size), cache, dtype, level, threads).stored
            assert_same_bits(q[2:], whole_q[start:end], f"q of {start} to {end}")
        slots = make_step([Work([0] * length, 0, blocks)], block_size).slots
        k, v = cache.logical()
        assert_same_bits(k[slots], whole_k, "k")
        assert_same_bits(v[slots], whole_v, "v")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_over_slabs(dtype: str, level: str, threads: int) -> None:
    """A pair of V may be written by two threads: rows 479 and 480 are of different slabs."""
    heads, length, block_size = Heads(1, 1, 8, 3), 485, 16
    blocks = np.random.default_rng(1).permutation(32).tolist()
    step = make_step([Work([0] * length, 1, blocks)], block_size)
    p = problem(heads, length, dtype)
    cache = Cache(KVShape(dtype, 1, heads.dim), 32)
    q = write(p, step, cache, dtype, level, threads)
    exact, errors = exactly(p, step.positions.tolist())
    assert_close(q.values.reshape(exact[0].shape), exact[0], errors[0], dtype)
    k, v = cache.logical()
    assert_close(k[step.slots, :, : heads.dim], exact[1], errors[1], dtype)
    assert_close(v[step.slots, :, : heads.dim], exact[2], errors[2], dtype)
    check_other_slots(dtype, step, k, v)


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_what_is_no_number_stays_in_its_slot(dtype: str, level: str) -> None:
    heads = Heads(2, 1, 16, 5)
    step = make_step([Work([0] * 6, 0, [1])], 16)
    p = problem(heads, 6, dtype)
    caches = [Cache(KVShape(dtype, 1, 16), 2) for _ in range(2)]
    clean = write(p, step, caches[0], dtype, level).stored
    p.x[3, 2] = np.nan
    q = write(p, step, caches[1], dtype, level)
    assert np.isnan(q.values[3]).all()
    rest = [0, 1, 2, 4, 5]
    assert_same_bits(q.stored[rest], clean[rest], "q")
    for ours, wanted in zip(caches[1].logical(), caches[0].logical(), strict=True):
        assert np.isnan(ours[step.slots[3]]).all()
        assert_same_bits(ours[step.slots[rest]], wanted[step.slots[rest]], "cache")
