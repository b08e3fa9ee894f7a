"""qk_norm_rope_kv_write: queries and cache against float64, and against the single kernels bit by bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.kv_write import kv_write
from albireo.backends.cuda.kernels.qk_norm_rope_kv_write import qk_norm_rope_kv_write
from albireo.backends.cuda.kernels.rope import rope
from albireo.backends.cuda.kv import LayerKV
from albireo.backends.reference.rounding import round_to
from albireo.dtypes import KV_CODES
from backends.cpu.harness import F32, F64, assert_same_bits, normal
from backends.cuda.tensors import ULP, ids, numbers, room, tensor
from backends.cuda.test_kv_write import assert_holds, at_slots, cache
from backends.cuda.test_rope import packed_table

EPS = 1e-6
POSITIONS, SLOTS = [3, 4, 90, 0], [19, 20, 9, 31]


@dataclass(frozen=True)
class Heads:
    """Of queries, of keys, their width; what is given beside qkv."""

    queries: int
    keys: int
    dim: int
    bias: bool = False
    norm: bool = False

    @property
    def columns(self) -> int:
        return (self.queries + 2 * self.keys) * self.dim

    def vectors(self) -> tuple[F32 | None, F32 | None, F32 | None]:
        """bias, q_norm, k_norm."""
        norms = (normal(1, self.dim, seed=8)[0], normal(1, self.dim, seed=9)[0]) if self.norm else (None, None)
        return normal(1, self.columns, seed=7)[0] if self.bias else None, *norms

    def __str__(self) -> str:
        return f"{self.queries}/{self.keys}x{self.dim}{'+bias' * self.bias}{'+norm' * self.norm}"


SHAPES = [
    Heads(3, 3, 8, bias=True),
    Heads(4, 2, 80),
    Heads(3, 1, 96, bias=True, norm=True),
    Heads(9, 3, 64, norm=True),
    Heads(2, 1, 256, norm=True),
]


def run(
    shape: Heads,
    qkv: F32,
    dtype: str,
    kv_dtype: str,
    rows: slice = slice(None),
    into: LayerKV | None = None,
    norms_v: bool = False,
) -> tuple[F32, LayerKV]:
    kv = into or cache(shape.keys, shape.dim, kv_dtype)
    q = room(len(qkv[rows]), shape.queries * shape.dim, dtype)
    qk_norm_rope_kv_write(
        tensor(qkv[rows]),
        *(None if vector is None else torch.from_numpy(vector) for vector in shape.vectors()),
        torch.from_numpy(packed_table(shape.dim, 100)),
        ids(POSITIONS[rows]),
        ids(SLOTS[rows]),
        q,
        kv,
        shape.queries,
        shape.keys,
        shape.dim,
        EPS,
        norms_v,
    )
    return numbers(q), kv


def turned(heads: F64, table: F32, weight: F32 | None) -> tuple[F64, F64]:
    """heads [T, H, D], normed and rotated; and how large the pair is that each number is of."""
    if weight is not None:
        heads = heads / np.sqrt(np.mean(heads**2, axis=2, keepdims=True) + EPS) * weight
    half = heads.shape[2] // 2
    rows = table[POSITIONS].astype(np.float64)
    pairs = (heads[:, :, :half] + 1j * heads[:, :, half:]) * (rows[:, 0] + 1j * rows[:, 1])[:, None]
    return np.concatenate([pairs.real, pairs.imag], axis=2), np.concatenate([np.abs(pairs)] * 2, axis=2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_queries_and_cache(shape: Heads) -> None:
    qkv, table = normal(4, shape.columns, seed=1), packed_table(shape.dim, 100)
    bias, q_norm, k_norm = shape.vectors()
    heads = (qkv if bias is None else qkv + bias).reshape(4, -1, shape.dim)
    first_key, first_value = shape.queries, shape.queries + shape.keys
    q, kv = run(shape, qkv, "float32", "float32")
    # the norm's tree, root, two divisions and two products; then two products and a sum
    roundings = 3 + (np.log2(shape.dim) / 2 + 6 if shape.norm else 0)
    for got, part, weight in (
        (q.reshape(4, -1, shape.dim), heads[:, :first_key], q_norm),
        (at_slots(kv.k, SLOTS)[:, :, : shape.dim], heads[:, first_key:first_value], k_norm),
    ):
        exact, size = turned(part.astype(np.float64), table, weight)
        assert (np.abs(got - exact) <= roundings * ULP * size).all()
    assert_holds(kv.v, None, SLOTS, heads[:, first_value:], "float32")

    keys = at_slots(kv.k, SLOTS)[:, :, : shape.dim]
    for dtype in ("bfloat16", "float16", *KV_CODES):
        rounded, narrow = run(shape, qkv, "float32" if dtype in KV_CODES else dtype, dtype)
        assert_same_bits(rounded, q if dtype in KV_CODES else round_to(q, dtype), f"queries beside {dtype}")
        assert_holds(narrow.k, narrow.k_scale, SLOTS, keys, dtype)
        assert_holds(narrow.v, narrow.v_scale, SLOTS, heads[:, first_value:], dtype)


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "int8"])
def test_a_token_depends_on_itself_alone(kv_dtype: str) -> None:
    shape = SHAPES[2]
    qkv = normal(4, shape.columns, seed=1)
    q, kv = run(shape, qkv, "bfloat16", kv_dtype)
    parts, into = [], cache(shape.keys, shape.dim, kv_dtype)
    for rows in (slice(3, 4), slice(0, 1), slice(1, 3)):
        parts.append(run(shape, qkv, "bfloat16", kv_dtype, rows, into)[0])
    assert_same_bits(np.concatenate([parts[1], parts[2], parts[0]]), q, "in chunks, out of order")
    for ours, wanted in ((into.k, kv.k), (into.v, kv.v), (into.k_scale, kv.k_scale), (into.v_scale, kv.v_scale)):
        assert ours is wanted is None or torch.equal(ours, wanted)


@pytest.mark.parametrize("norms_v", [False, True])
def test_the_same_bits_as_single_kernels(norms_v: bool) -> None:
    shape = Heads(9, 3, 80, norm=True)
    qkv = normal(4, shape.columns, seed=1)
    q, kv = run(shape, qkv, "float32", "bfloat16", norms_v=norms_v)
    _, q_norm, k_norm = shape.vectors()
    assert q_norm is not None and k_norm is not None
    table, positions = torch.from_numpy(packed_table(shape.dim, 100)), ids(POSITIONS)
    widths = np.cumsum([shape.queries * shape.dim, shape.keys * shape.dim])
    queries, keys, values = (tensor(part) for part in np.split(qkv, widths, axis=1))
    for heads, weight, count in ((queries, q_norm, shape.queries), (keys, k_norm, shape.keys)):
        head_norm(heads, torch.from_numpy(weight), heads, EPS, count)
        rope(heads, table, positions, heads, count, shape.dim)
    if norms_v:
        head_norm(values, None, values, EPS, shape.keys)
    other = cache(shape.keys, shape.dim, "bfloat16")
    kv_write(keys, values, ids(SLOTS), other, shape.keys, shape.dim)
    assert_same_bits(numbers(queries), q, "queries")
    assert torch.equal(other.k, kv.k) and torch.equal(other.v, kv.v)


def test_padding_rows_write_the_null_block_only() -> None:
    shape = SHAPES[1]
    kv = cache(shape.keys, shape.dim, "float32")
    qkv = tensor(normal(3, shape.columns))
    table, zeros = torch.from_numpy(packed_table(shape.dim, 100)), ids([0, 0, 0])
    q = room(3, shape.queries * shape.dim)
    qk_norm_rope_kv_write(qkv, None, None, None, table, zeros, zeros, q, kv, shape.queries, shape.keys, shape.dim, EPS)
    assert not kv.k[1:].any() and not kv.v[1:].any() and not kv.k[0, :, 1:].any()
    assert kv.k[0, :, 0].any()
