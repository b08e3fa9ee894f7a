"""kv_row: norm, rotation and what lies behind, as the reference has them one after another, to the places of the cache
that kv_write writes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.kv_row import RowNorm, RowTurns, kv_row
from albireo.backends.cuda.kv import DeviceKV, LayerKV
from albireo.backends.reference.rounding import round_to
from albireo.errors import InvariantError
from albireo.graph.kv_layout import KVLayout
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ids, tensor
from backends.cuda.test_kv_write import BLOCK, BLOCKS, SLOTS, at_slots
from backends.cuda.test_rope import packed_table

POSITIONS = [3, 0, 199, 7]


def cache(head_dim: int, dtype: str, every: int = 1) -> LayerKV:
    """Keys alone, of the second layer of two."""
    layout = KVLayout(2, 1, head_dim, dtype, BLOCK, False, every=(every, every) if every > 1 else ())
    return DeviceKV(layout, BLOCKS, torch.device("cpu")).layers[1]


def turned(x: F32, table: F32, side_by_side: bool) -> F32:
    """By POSITIONS, in float64."""
    rows = table[POSITIONS].astype(np.float64)
    turn, pairs = rows[:, 0] + 1j * rows[:, 1], x.astype(np.float64)
    pairs = pairs.reshape(len(x), -1, 2) if side_by_side else pairs.reshape(len(x), 2, -1).swapaxes(1, 2)
    found = pairs @ [1, 1j] * turn
    parts = np.stack([found.real, found.imag], axis=-1)
    return (parts if side_by_side else parts.swapaxes(1, 2)).reshape(x.shape)


@pytest.mark.parametrize(
    ("width", "tail", "is_centered", "side_by_side", "is_turned"),
    [
        (20, 0, False, True, True),
        (12, 0, True, False, True),
        (32, 8, False, False, True),
        (32, 8, False, True, True),
        (10, 6, False, False, False),
        (40, 0, False, False, False),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_in_its_place(
    width: int, tail: int, is_centered: bool, side_by_side: bool, is_turned: bool, dtype: str
) -> None:
    x, behind = normal(4, width, seed=1), normal(4, tail or 2, seed=2)
    weight, bias = (normal(1, width, seed=seed)[0] for seed in (3, 4))
    table = packed_table(tail or width, 200)
    kv = cache(width + tail, dtype)
    norm = RowNorm(1e-5, torch.from_numpy(weight), torch.from_numpy(bias) if is_centered else None, is_centered)
    turns = RowTurns(torch.from_numpy(table), ids(POSITIONS), side_by_side) if is_turned else None
    given = tensor(x, pad=5), tensor(behind, pad=3) if tail else None, norm, turns
    kv_row(*given, ids(POSITIONS), ids(SLOTS), kv)
    wide = x.astype(np.float64) - (x.mean(axis=1, keepdims=True, dtype=np.float64) if is_centered else 0)
    wide = wide / np.sqrt((wide**2).mean(axis=1, keepdims=True) + 1e-5) * weight + (bias if is_centered else 0)
    if is_turned and not tail:
        wide = turned(wide, table, side_by_side)
    if tail:
        wide = np.concatenate([wide, turned(behind, table, side_by_side) if is_turned else behind], axis=1)
    found = at_slots(kv.k, SLOTS)[:, 0]
    unit = 1e-5 if dtype == "float32" else 2.0**-8
    assert (np.abs(found[:, : width + tail] - wide) <= unit * (np.abs(wide) + np.abs(wide).mean())).all()
    assert not found[:, width + tail :].any() and torch.count_nonzero(kv.k) <= wide.size
    alone = cache(width + tail, dtype)
    turns = RowTurns(torch.from_numpy(table), ids(POSITIONS[2:3]), side_by_side) if is_turned else None
    given = tensor(x[2:3]), tensor(behind[2:3]) if tail else None, norm, turns
    kv_row(*given, ids(POSITIONS[2:3]), ids(SLOTS[2:3]), alone)
    assert_same_bits(at_slots(alone.k, SLOTS[2:3])[:, 0], found[2:3], "a row alone")


def test_rows_that_end_entries_alone_are_written() -> None:
    slots = [11, 31, 15, 19]
    x, kv = normal(4, 16), cache(16, "float32", 4)
    kv.k.fill_(float("nan"))
    norm = RowNorm(1e-9)
    kv_row(tensor(x), None, norm, None, ids(POSITIONS), ids(slots), kv)
    # positions 3, 199 and 7 end entries of four
    assert int((~kv.k.isnan()).sum()) == 3 * 16
    written = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True))
    for row in (0, 2, 3):
        block, place = slots[row] // BLOCK, slots[row] % BLOCK // 4
        np.testing.assert_allclose(kv.k[block, 0, place].numpy(), round_to(written[row], "float32"), rtol=1e-5)


def test_codes_are_refused() -> None:
    kv = DeviceKV(KVLayout(1, 1, 16, "int8", BLOCK), BLOCKS, torch.device("cpu")).layers[0]
    with pytest.raises(InvariantError, match="as numbers"):
        kv_row(tensor(normal(4, 16)), None, None, None, ids(POSITIONS), ids(SLOTS), kv)
