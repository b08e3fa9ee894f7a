"""depthwise_conv: against the reference, at widths of one row and of more than there are; a row's bits by its
neighbours alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.depthwise_conv import depthwise_conv
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.rounding import round_to
from albireo.backends.reference.rows import depthwise_conv as of_reference
from backends.cpu.harness import F32, assert_same_bits, normal, rows_step
from backends.cuda.tensors import numbers, room, tensor

pytestmark = pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of exp in silu, where it gives the limit


def summed(x: F32, weight: F32, bias: F32 | None, activation: str, dtype: str = "float32") -> F32:
    out = room(*x.shape, dtype)
    depthwise_conv(
        tensor(x, pad=5), torch.from_numpy(weight), out, None if bias is None else torch.from_numpy(bias), activation
    )
    return numbers(out)


@pytest.mark.parametrize("rows", [1, 16, 37])
@pytest.mark.parametrize(
    ("channels", "width", "activation", "has_bias"),
    [(40, 9, "silu", True), (130, 31, "silu", False), (128, 1, "none", True), (5, 63, "none", False)],
)
def test_rows_around_each_are_summed(rows: int, channels: int, width: int, activation: str, has_bias: bool) -> None:
    """Of fewer channels than a program has, and of more; of fewer rows than are read for one."""
    x, weight = normal(rows, channels), normal(channels, width, seed=1)
    bias = normal(1, channels, seed=2)[0] if has_bias else None
    roles = {"x": x, "weight": weight} | ({} if bias is None else {"bias": bias})
    (wanted,) = of_reference(OpCall(roles, {"activation": activation}, rows_step(rows)))
    got = summed(x, weight, bias, activation)
    padded = np.pad(np.abs(x), ((width // 2, width // 2), (0, 0)))
    size = sum(np.abs(weight[:, j]) * padded[j : j + rows] for j in range(width)) + (
        0 if bias is None else np.abs(bias)
    )
    # a chain of products; then silu, whose slope is 1.1 at most
    assert (np.abs(got - wanted) <= 2.0**-24 * (1.1 * (width + 2) * size + 32 * np.abs(wanted))).all()
    assert_same_bits(summed(x, weight, bias, activation, "bfloat16"), round_to(got, "bfloat16"), "rounded last")


def test_a_row_has_the_bits_that_its_neighbours_give_it() -> None:
    """Wherever it stands in a tile, and however many rows there are."""
    x, weight, bias = normal(53, 40), normal(40, 9, seed=1), normal(1, 40, seed=2)[0]
    whole = summed(x, weight, bias, "silu")
    for first, end in ((0, 20), (3, 53), (17, 40)):
        own = summed(x[first:end], weight, bias, "silu")
        low, high = first + 4 * (first > 0), end - 4 * (end < 53)
        assert_same_bits(own[low - first : high - first], whole[low:high], f"rows {first} to {end}")
