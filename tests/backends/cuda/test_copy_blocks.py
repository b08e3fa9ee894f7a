"""copy_blocks and swap_blocks move whole blocks of every layer, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.copy_blocks import copy_blocks
from albireo.backends.cuda.kernels.swap_blocks import HostKV, swap_in, swap_out
from albireo.backends.cuda.kv import DeviceKV
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout


def filled(dtype: str, num_blocks: int = 7, head_dim: int = 80) -> DeviceKV:
    """Arbitrary bytes; NaN and all. Of four layers the second has another shape."""
    shapes = ((3, head_dim), (1, 2 * head_dim), (3, head_dim))
    kv = DeviceKV(KVLayout(3, *shapes[0], dtype, 8, shapes=shapes), num_blocks, torch.device("cpu"))
    rng = np.random.default_rng(5)
    for array in (*kv.numbers, *kv.scales):
        flat = array.view(torch.uint8)
        flat.copy_(torch.from_numpy(rng.integers(0, 256, tuple(flat.shape), dtype=np.uint8)))
    return kv


def contents(kv: DeviceKV) -> list[np.ndarray]:
    """By array: bytes [N, ...], block by block."""
    return [array.view(torch.uint8).numpy().swapaxes(0, 2).copy() for array in (*kv.numbers, *kv.scales)]


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "fp8"])
def test_copies_happen_as_if_in_order(dtype: str) -> None:
    kv = filled(dtype)
    wanted = contents(kv)
    # a block twice a source; a target that is a source later; a target that was a source; a target twice
    pairs = [(1, 2), (1, 3), (2, 4), (5, 1), (6, 4)]
    for source, target in pairs:
        for array in wanted:
            array[target] = array[source]
    copy_blocks(kv, pairs)
    for found, array in zip(contents(kv), wanted, strict=True):
        assert np.array_equal(found, array)
    copy_blocks(kv, [])


@pytest.mark.parametrize("staged", [1, 8])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_blocks_come_back_from_the_host(dtype: str, staged: int) -> None:
    kv = filled(dtype)
    before = contents(kv)
    host = HostKV(kv, 5, staged)
    swap_out(kv, host, [(2, 1), (6, 2), (3, 0), (1, 4)])
    for found, array in zip(contents(kv), before, strict=True):
        assert np.array_equal(found, array)
    moves = [(1, 5), (0, 2), (2, 1), (4, 3)]
    swap_in(kv, host, moves)
    came_from = {5: 2, 2: 3, 1: 6, 3: 1}
    for found, array in zip(contents(kv), before, strict=True):
        for block in range(7):
            assert np.array_equal(found[block], array[came_from.get(block, block)])


@pytest.mark.parametrize("pairs", [[(0, 9)], [(7, 0)], [(1, 2), (3, 2)], [(-1, 0)]])
def test_blocks_that_are_not_there(pairs: list[tuple[int, int]]) -> None:
    kv = filled("int8")
    with pytest.raises(InvariantError):
        swap_out(kv, HostKV(kv, 5, 2), pairs)
