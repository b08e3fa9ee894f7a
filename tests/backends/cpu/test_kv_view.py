"""The KV cache read back, against its layout as harness.py writes it out."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.cpu.kv_view import read_slots, widen
from albireo.dtypes import COMPUTE_DTYPES
from albireo.graph.kv_layout import KVLayout
from backends.cpu.harness import Cache, KVShape, assert_same_bits, encode, normal


@pytest.mark.parametrize("block_size", [8, 16, 32])
@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_slots_hold_what_was_written(dtype: str, block_size: int) -> None:
    """Slots in any order, of heads that are padded, across blocks."""
    cache = Cache(KVShape(dtype, 3, 20, block_size), 5)
    slots = np.random.default_rng(0).permutation(5 * block_size)[:17].astype(np.int32)
    k, v = normal(17, 3, 20, dtype=dtype), normal(17, 3, 20, seed=1, dtype=dtype)
    cache.fill(slots, k, v)
    stored = cache.memory.stored.view(np.uint8).reshape(-1)
    found = read_slots(stored, KVLayout(1, 3, 20, dtype, block_size), slots)
    assert_same_bits(found[0], k, "k")
    assert_same_bits(found[1], v, "v")


@pytest.mark.parametrize("dtype", COMPUTE_DTYPES)
def test_widened_numbers_are_the_numbers(dtype: str) -> None:
    x = normal(40, dtype=dtype)
    assert_same_bits(widen(encode(x, dtype).view(np.uint8), dtype), x)
