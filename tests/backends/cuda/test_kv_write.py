"""kv_write puts each head of each token in its place, as the cache's type holds it, and touches nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.kv_write import kv_write
from albireo.backends.cuda.kv import DeviceKV, LayerKV
from albireo.backends.reference.rounding import round_to, scaled_codes
from albireo.dtypes import KV_CODES
from albireo.graph.kv_layout import KVLayout
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ids, tensor

BLOCKS, BLOCK = 4, 8
SLOTS = [9, 31, 8, 17]


def cache(num_heads: int, head_dim: int, dtype: str) -> LayerKV:
    """The second layer of two."""
    return DeviceKV(KVLayout(2, num_heads, head_dim, dtype, BLOCK), BLOCKS, torch.device("cpu")).layers[1]


def at_slots(part: torch.Tensor, slots: list[int]) -> F32:
    """[T, K, D] or, of scales, [T, K]; what a cache holds at slots."""
    places = np.asarray(slots)
    found = part.float().numpy().swapaxes(1, 2)[places // BLOCK, places % BLOCK]
    return np.asarray(found, np.float32)


def assert_holds(numbers: torch.Tensor, scales: torch.Tensor | None, slots: list[int], wanted: F32, dtype: str) -> None:
    """wanted: [T, K, D] float32, before the cache rounds."""
    padding = np.zeros((*wanted.shape[:2], numbers.shape[3] - wanted.shape[2]), np.float32)
    if scales is None:
        stored = round_to(wanted, dtype)
    else:
        stored, scale = scaled_codes(wanted, dtype)
        if dtype == "int8":
            stored = stored + np.float32(0)  # there is no -0
        assert_same_bits(at_slots(scales, slots), scale[..., 0], "scales")
        assert torch.count_nonzero(scales) <= scale.size
    assert_same_bits(at_slots(numbers, slots), np.concatenate([stored, padding], axis=2), "numbers")
    assert torch.count_nonzero(numbers.float()) == np.count_nonzero(stored)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", *KV_CODES])
@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 8), (2, 80), (5, 64)])
def test_heads_of_tokens(num_heads: int, head_dim: int, dtype: str) -> None:
    k, v = normal(4, num_heads * head_dim, seed=1), normal(4, num_heads * head_dim, seed=2)
    k[1, :head_dim] = 0
    k[2, :head_dim] *= np.float32(2.0**-126)
    v[3] *= 1000
    kv = cache(num_heads, head_dim, dtype)
    kv_write(tensor(k), tensor(v, pad=7), ids(SLOTS), kv, num_heads, head_dim)
    shape = (4, num_heads, head_dim)
    assert_holds(kv.k, kv.k_scale, SLOTS, k.reshape(shape), dtype)
    assert_holds(kv.v, kv.v_scale, SLOTS, v.reshape(shape), dtype)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", KV_CODES)
def test_a_head_that_is_no_numbers_has_the_scale_nan(dtype: str) -> None:
    k = normal(1, 16)
    k[0, 3], k[0, 15] = np.nan, np.inf
    kv = cache(2, 8, dtype)
    kv_write(tensor(k), tensor(normal(1, 16)), ids([9]), kv, 2, 8)
    assert kv.k_scale is not None and kv.v_scale is not None
    assert np.isnan(at_slots(kv.k_scale, [9])).all() and not at_slots(kv.k, [9]).any()
    assert np.isfinite(at_slots(kv.v_scale, [9])).all()
