"""given and add_given: rows that come with a step, bit by bit; what a norm of them is made of is what linears leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.add_given import add_given
from albireo.backends.cuda.kernels.given import given
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.row_squares import RowParts
from albireo.backends.cuda.linear import workspace_size
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.dtypes import FP8_TOKEN
from albireo.quantization.rounding import round_float_tokens
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.linears import parts_of, random
from backends.cuda.tensors import FILL, e4m3_parts, ids, numbers, room, tensor

#: Of four tokens the third and the first are of a picture.
OF_TOKEN = [1, -1, 0, -1]


@pytest.mark.parametrize("cols", [1, 70, 1030])
def test_rows_are_copied(cols: int) -> None:
    rows, out = normal(3, cols), room(3, cols)
    given(tensor(rows, pad=5), out)
    assert_same_bits(numbers(out), rows, "rows")


@pytest.mark.parametrize("cols", [1, 70, 1030])
def test_rows_in_place_of_some_of_an_embedding(cols: int) -> None:
    """Times what the model multiplies embeddings by; what is there of the others stays."""
    rows, out = normal(2, cols), room(4, cols)
    given(tensor(rows, pad=5), out, ids(OF_TOKEN), 55.5)
    found = numbers(out)
    assert_same_bits(found[[2, 0]], rows * np.float32(55.5), "of pictures")
    assert (found[[1, 3]] == FILL).all()


@pytest.mark.parametrize("cols", [1, 70, 1030])
@pytest.mark.parametrize("is_in_place", [False, True])
def test_rows_are_added_to_some(cols: int, is_in_place: bool) -> None:
    """-0 stays -0 where nothing is added."""
    x, rows = normal(4, cols, seed=1), normal(2, cols, seed=2)
    x[1, 0] = -0.0
    held, out = tensor(x), room(4, cols)
    out = held if is_in_place else out
    add_given(held, tensor(rows, pad=5), ids(OF_TOKEN), out)
    wanted = x.copy()
    wanted[[2, 0]] += rows
    assert_same_bits(numbers(out), wanted, "sums")


@pytest.mark.parametrize("n", [64, 200, 600])
def test_what_a_norm_is_made_of_is_what_a_linear_leaves(n: int) -> None:
    """Of rows to which nothing is added the same bits; of the others those of the sum."""
    x, residual, gain = random(4, 128, seed=1, dtype=torch.bfloat16), random(4, n, seed=2), random(n, seed=3)
    matrix = DeviceMatrix("bfloat16", n, 128, random(n, 128, seed=4, dtype=torch.bfloat16))
    space = torch.zeros(workspace_size("bfloat16", n, 128), dtype=torch.uint8)
    made, wanted = torch.empty(4, n), parts_of(gain, 4)
    matmul_smallm(x, matrix, Finish(made, n, residual=residual, parts_out=wanted), workspace=space)
    rows, out, parts = random(2, n, seed=5), torch.empty(4, n), parts_of(gain, 4)
    add_given(made, rows, ids(OF_TOKEN), out, parts)
    others = [1, 3]
    for ours, theirs in ((out, made), (parts.scaled, wanted.scaled), (parts.squares, wanted.squares)):
        assert torch.equal(ours[others], theirs[others]) and not torch.equal(ours[[0, 2]], theirs[[0, 2]])
    assert torch.equal(parts.scaled, (out * gain).bfloat16())
    alone, of_alone = torch.empty(4, n), parts_of(gain, 4)
    add_given(out, rows, ids([-1] * 4), alone, of_alone)
    assert torch.equal(of_alone.squares, parts.squares) and torch.equal(of_alone.scaled, parts.scaled)


def test_codes_that_a_norm_is_made_of() -> None:
    x, rows, gain = normal(4, 300, seed=1), normal(2, 300, seed=2), normal(1, 300, seed=3)[0]
    scaled = room(4, 300, FP8_TOKEN)
    out = room(4, 300)
    parts = RowParts(torch.from_numpy(gain), scaled, torch.full((4, 5), torch.nan))
    add_given(tensor(x), tensor(rows), ids(OF_TOKEN), out, parts)
    codes, scale = round_float_tokens(numbers(out) * gain)
    found, found_scale = e4m3_parts(scaled, 300)
    assert np.array_equal(found, codes * scale) and np.array_equal(found_scale, scale)
