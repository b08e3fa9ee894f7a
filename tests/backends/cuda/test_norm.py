"""norm against float64; codes against their definition, of the numbers that the kernel itself gives as float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.norm import norm
from albireo.backends.reference.rounding import round_to
from albireo.dtypes import FP8_TOKEN, TOKEN
from albireo.quantization.rounding import round_float_tokens, round_tokens
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ULP, e4m3_parts, ids, numbers, room, tensor, token_parts

EPS = 1e-5
ROWS = 5


def normed(x: F32, weight: F32, rows: list[int] | None = None, dtype: str = "float32") -> F32:
    out = room(len(x) if rows is None else len(rows), x.shape[1], dtype)
    norm(tensor(x), torch.from_numpy(weight), out, EPS, x.shape[1], None if rows is None else ids(rows))
    return numbers(out)


@pytest.mark.parametrize("cols", [1, 8, 70, 1030])
def test_rows_have_unit_mean_square_times_weight(cols: int) -> None:
    x, weight = 3 * normal(ROWS, cols, seed=1), normal(1, cols, seed=2)[0]
    exact = x.astype(np.float64)
    exact = exact / np.sqrt(np.mean(exact**2, axis=1, keepdims=True) + EPS) * weight
    got = normed(x, weight)
    # a tree over the row, then a root, two divisions and two products
    assert (np.abs(got - exact) <= (np.log2(cols + 1) / 2 + 6) * ULP * np.abs(exact)).all()
    assert_same_bits(normed(x, weight, [4, 0, 4]), got[[4, 0, 4]], "gathered")
    for dtype in ("bfloat16", "float16"):
        assert_same_bits(normed(x, weight, None, dtype), round_to(got, dtype), dtype)


@pytest.mark.parametrize("cols", [1, 8, 70, 1030])
def test_centered_rows_have_no_mean(cols: int) -> None:
    x, weight, bias = 3 * normal(ROWS, cols, seed=1) + 50, normal(1, cols, seed=2)[0], normal(1, cols, seed=3)[0]
    wide = x.astype(np.float64)
    apart = wide - wide.mean(axis=1, keepdims=True)
    factor = 1 / np.sqrt(np.mean(apart**2, axis=1, keepdims=True) + EPS)
    # a tree over the row gives the mean, of numbers of about 50; then as without one, and a sum
    of_mean = 2 * factor * (np.log2(cols + 1) / 2 + 2) * ULP * np.abs(wide).mean(axis=1, keepdims=True)
    for vectors in ((weight, bias), (np.ones_like(weight), np.zeros_like(bias))):
        gain, also = (torch.from_numpy(v) for v in vectors) if vectors[0] is weight else (None, None)
        out = room(ROWS, cols, "float32")
        norm(tensor(x), gain, out, EPS, cols, bias=also, centered=True)
        scaled = np.abs(apart * factor * vectors[0])
        own = (np.log2(cols + 1) / 2 + 8) * ULP * (scaled + np.abs(vectors[1]))
        exact = apart * factor * vectors[0] + vectors[1]
        assert (np.abs(numbers(out) - exact) <= of_mean * (np.abs(vectors[0]) + scaled) + own).all()


def test_a_row_depends_on_itself_alone() -> None:
    x, weight = normal(ROWS, 200, seed=3), normal(1, 200, seed=4)[0]
    together = normed(x, weight)
    for row in range(ROWS):
        assert_same_bits(normed(x[row : row + 1], weight), together[row : row + 1], f"row {row} alone")


@pytest.mark.parametrize("cols", [8, 70, 200, 1030])
def test_codes_of_a_token(cols: int) -> None:
    x, weight = normal(ROWS, cols, seed=1), normal(1, cols, seed=2)[0]
    x[2] = 0
    out = room(ROWS, cols, TOKEN)
    norm(tensor(x), torch.from_numpy(weight), out, EPS, cols)
    wanted, scale = round_tokens(normed(x, weight))
    codes, got_scale, sums = token_parts(out, cols)
    assert np.array_equal(codes[:, :cols], wanted)
    assert not codes[:, cols:].any()
    assert_same_bits(got_scale, scale, "scales")
    ends = [*range(0, cols, 16), cols]
    assert np.array_equal(sums, np.stack([wanted[:, :end].sum(axis=1) for end in ends], axis=1))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_token_that_is_no_numbers_has_the_scale_nan() -> None:
    x = normal(3, 70)
    x[0, 9], x[2, 69] = np.nan, np.inf
    out = room(3, 70, TOKEN)
    norm(tensor(x), torch.ones(70), out, EPS, 70)
    codes, scale, sums = token_parts(out, 70)
    assert list(np.isnan(scale[:, 0])) == [True, False, True]
    assert not codes[[0, 2]].any() and not sums[[0, 2]].any()


@pytest.mark.parametrize("cols", [8, 200])
def test_float8_with_a_scale_a_group(cols: int) -> None:
    x, weight = normal(ROWS, cols, seed=1), normal(1, cols, seed=2)[0]
    x[2] = 0
    out = room(ROWS, cols, FP8_TOKEN)
    norm(tensor(x), torch.from_numpy(weight), out, EPS, cols)
    (found, scale), (codes, wanted) = e4m3_parts(out, cols), round_float_tokens(normed(x, weight))
    assert_same_bits(found, codes * wanted, "numbers")
    assert_same_bits(scale, wanted, "scales")


def test_a_residual_is_added_to_what_is_normed() -> None:
    x, weight, base = normal(ROWS, 70, seed=1), normal(1, 70, seed=2)[0], normal(ROWS, 70, seed=3)
    out = tensor(base)
    norm(tensor(x), torch.from_numpy(weight), out, EPS, 70, base=out)
    assert_same_bits(numbers(out), base + normed(x, weight), "in place")
