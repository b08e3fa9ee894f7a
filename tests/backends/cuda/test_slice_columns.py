"""slice_columns copies columns, wherever they begin."""

from __future__ import annotations

import pytest

from albireo.backends.cuda.kernels.slice_columns import slice_columns
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.tensors import numbers, room, tensor


@pytest.mark.parametrize(("start", "cols"), [(0, 1), (7, 33), (3, 1100), (1040, 60)])
def test_columns(start: int, cols: int) -> None:
    x = normal(3, 1110)
    out = room(3, cols)
    slice_columns(tensor(x), start, out)
    assert_same_bits(numbers(out), x[:, start : start + cols], "columns")
