"""A KV cache of int8 and fp8: what is written, byte by byte, against the reference's rounding; and read back."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.cpu.kv_view import read_slots
from albireo.backends.reference.rounding import round_kv, scaled_codes
from albireo.dtypes import KV_CODES
from albireo.graph.kv_layout import KVLayout
from backends.cpu.harness import (
    F32,
    Cache,
    Call,
    CodeCache,
    Guarded,
    KVShape,
    assert_same_bits,
    code_bytes,
    normal,
    panels,
    run,
    variants,
)
from step_batches import Work, make_step

LEVELS = list(dict.fromkeys(level for _, level in variants("kv_write")))
FUSED = variants("qkv_rope_kv")


def hard_rows(heads: int, dim: int) -> F32:
    """[n, heads, dim] of every kind: numbers of many sizes, zeros, ties, one outlier, the smallest, and no numbers."""
    rng = np.random.default_rng(dim)
    rows = [rng.standard_normal(dim) * 10.0**e for e in (-38, -20, -3, 0, 3, 20, 37)]
    rows += [np.zeros(dim), np.full(dim, -0.0), np.where(np.arange(dim) == dim // 2, 1e4, rng.standard_normal(dim))]
    rows += [
        np.resize([127.0, 0.5, 1.5, -2.5, 126.5, -0.5, 63.5], dim),
        np.resize([448.0, 17, 19, -1.0625, 0.0009765625], dim),
    ]
    rows += [rng.uniform(-448, 448, dim) * 2.0 ** rng.integers(-18, 1, dim) for _ in range(4)]
    rows += [np.full(dim, 1e-45), np.full(dim, 2.0**-119), np.full(dim, 3.4e38)]
    rows += [np.where(np.arange(dim) == i % dim, bad, 1.0) for i, bad in enumerate((np.nan, np.inf, -np.inf))]
    with np.errstate(over="ignore"):
        return np.stack([np.roll(np.array(rows, np.float32), h, axis=0) for h in range(heads)], axis=1)


@pytest.mark.parametrize("block_size", [8, 16, 32])
@pytest.mark.parametrize("dim", [8, 12, 64, 80, 96, 128, 256])
@pytest.mark.parametrize("kv", KV_CODES)
@pytest.mark.parametrize("level", LEVELS)
def test_every_byte_of_what_is_written(level: str, kv: str, dim: int, block_size: int) -> None:
    """Slots of scattered blocks; all other bytes stay as they are."""
    k, v = hard_rows(3, dim), hard_rows(3, dim)[::-1].copy()
    shape, blocks = KVShape(kv, 3, dim, block_size), [5, 0, 3, 7]
    step = make_step([Work([0] * len(k), 1, blocks)], block_size)
    ours, wanted = CodeCache(shape, 9), CodeCache(shape, 9)
    args = {"x": Guarded(k.reshape(len(k), -1)), "y": Guarded(v.reshape(len(k), -1)), "kv": ours.memory}
    run([Call("kv_write", level, "float32", args | shape.args)], step, threads=2)
    wanted.fill(step.slots, k, v)
    assert_same_bits(nan_bits(ours.memory), nan_bits(wanted.memory))
    found = read_slots(ours.memory.stored.reshape(-1), KVLayout(1, 3, dim, kv, block_size), step.slots)
    for seen, given in zip(found, (k, v), strict=True):
        np.testing.assert_array_equal(seen, round_kv(given, kv))


def nan_bits(memory: Guarded) -> np.ndarray:
    """Scales that are no number may be any of those."""
    stored = np.ascontiguousarray(memory.stored).view(np.uint32)
    return np.where((stored & 0x7FFFFFFF) > 0x7F800000, np.uint32(0xFFFFFFFF), stored)


@pytest.mark.parametrize("kv", KV_CODES)
@pytest.mark.parametrize(("dtype", "level"), FUSED)
def test_the_fused_kernel_writes_what_it_computes(dtype: str, level: str, kv: str) -> None:
    """Two sequences, by one thread and by three, against its own float32 cache rounded by the reference."""
    queries, keys, dim, inner, rows = 4, 2, 24, 37, 58
    step = make_step([Work([0] * 40, 3, [4, 1, 2]), Work([0] * 18, 0, [0, 3])], 16)
    x, w = normal(rows, inner, dtype=dtype), normal((queries + 2 * keys) * dim, inner, seed=1, dtype=dtype)
    rope = np.stack([np.full((50, dim // 2), 0.6), np.full((50, dim // 2), 0.8)], axis=1)
    exact = Cache(KVShape("float32", keys, dim), 6)
    caches = [CodeCache(KVShape(kv, keys, dim), 6) for _ in range(2)]
    for cache, threads in ((exact, 1), (caches[0], 1), (caches[1], 3)):
        args = {"x": Guarded(x, dtype), "weight": panels(w, dtype), "rope": Guarded(rope), "kv": cache.memory}
        args |= {"out": Guarded.poisoned((rows, queries * dim), dtype), "n": len(w), "k": inner, "num_heads": queries}
        args |= {"x_dtype": dtype, "w_dtype": dtype, "out_dtype": dtype} | cache.shape.args
        run([Call("qkv_rope_kv", level, dtype, args)], step, threads)
    wanted = CodeCache(KVShape(kv, keys, dim), 6)
    wanted.fill(step.slots, *(a[step.slots, :, :dim] for a in exact.logical()))
    for cache in caches:
        assert_same_bits(cache.memory.stored, wanted.memory.stored)


def test_codes_of_e4m3_are_torchs() -> None:
    torch = pytest.importorskip("torch")
    x = hard_rows(1, 256)[7:16, 0].reshape(-1)
    x = np.concatenate([np.clip(x, -448, 448), np.linspace(-0.02, 0.02, 4001, dtype=np.float32)])
    wanted = torch.from_numpy(x).to(torch.float8_e4m3fn)
    ours, scale = scaled_codes(np.concatenate([x, np.float32([448.0])]), "fp8")
    assert scale[0] == 1
    np.testing.assert_array_equal(ours[:-1], wanted.float().numpy())
    np.testing.assert_array_equal(code_bytes(ours[:-1], "fp8"), wanted.view(torch.uint8).numpy())


@pytest.mark.parametrize("kv", KV_CODES)
def test_rounding_is_relative_to_the_largest(kv: str) -> None:
    """int8: half a step of amax / 127; fp8: a sixteenth of a number, or half a step at the bottom of its range."""
    x = hard_rows(1, 128)[[2, 3, 4, 9], 0]
    off, most = np.abs(round_kv(x, kv) - x), np.abs(x).max(axis=-1, keepdims=True)
    allowed = most / 254 if kv == "int8" else np.maximum(np.abs(x) / 16, most / 448 * 2.0**-10)
    assert (off <= allowed * 1.00001).all()
