"""two_norms against norm, scale_by and norm, one behind another, bit by bit; and a row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.norm import norm
from albireo.backends.cuda.kernels.two_norms import Gain, two_norms
from albireo.dtypes import FP8_TOKEN, TOKEN
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.tensors import numbers, room, tensor

ROWS = 4


@pytest.mark.parametrize(
    ("cols", "dtype", "has_by", "has_weights"),
    [
        (70, "float32", True, True),
        (200, "bfloat16", False, True),
        (1030, "float16", True, False),
        (200, TOKEN, False, True),
        (200, FP8_TOKEN, True, True),
    ],
)
def test_both_norms_are_those_of_two_calls(cols: int, dtype: str, has_by: bool, has_weights: bool) -> None:
    x, base = 3 * normal(ROWS, cols, seed=1), normal(ROWS, cols, seed=2)
    gains = [torch.from_numpy(normal(1, cols, seed=seed)[0]) if has_weights else None for seed in (3, 4)]
    first, second = Gain(1e-5, gains[0]), Gain(1e-3, gains[1])
    by = torch.tensor([0.7]) if has_by else None
    total, wanted = room(ROWS, cols), room(ROWS, cols, dtype)
    norm(tensor(x), first.weight, total, first.eps, cols, base=tensor(base))
    if by is not None:
        elementwise("scale_by", total, None, total, cols, weight=by)
    norm(total, second.weight, wanted, second.eps, cols)

    def found(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        out, normed = tensor(base[rows], pad=7), room(len(x[rows]), cols, dtype)
        two_norms(tensor(x[rows], pad=5), first, out, by, second, out, normed)
        return out, normed

    out, normed = found(slice(None))
    assert_same_bits(numbers(out), numbers(total), "the sum, written over what is added")
    assert np.array_equal(normed.view(torch.uint8).numpy(), wanted.view(torch.uint8).numpy())
    alone = found(slice(2, 3))
    assert_same_bits(numbers(alone[0]), numbers(total)[2:3], "a row alone")
    assert np.array_equal(alone[1].view(torch.uint8).numpy(), wanted[2:3].view(torch.uint8).numpy())
