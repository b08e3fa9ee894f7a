"""Rounding to 16 bits against torch, over every pattern that decides a rounding."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.rounding import (
    bfloat16_bits,
    from_bfloat16_bits,
    round_to,
    round_to_bfloat16,
    round_to_float16,
)

torch = pytest.importorskip("torch")


def hard_floats() -> np.ndarray:
    """Every sign, exponent and upper mantissa, with lower bits just below, at and just above a tie."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    low = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    return (upper[:, None] | low[None, :]).reshape(-1).view(np.float32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_equals_torch(dtype: str) -> None:
    x = hard_floats()
    expected = torch.from_numpy(x.copy()).to(getattr(torch, dtype)).to(torch.float32).numpy()
    np.testing.assert_array_equal(round_to(x, dtype), expected)  # NaN equals NaN here


def test_float32_is_kept() -> None:
    x = hard_floats()
    assert round_to(x, "float32").tobytes() == x.tobytes()


def test_bits_round_trip() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    numbers = from_bfloat16_bits(bits)
    np.testing.assert_array_equal(bfloat16_bits(numbers), bits)
    finite = numbers[np.isfinite(numbers)]
    np.testing.assert_array_equal(round_to_bfloat16(finite), finite)


def test_overflow_is_infinity() -> None:
    assert round_to_float16(np.float32([65519.0, 65520.0, -1e9])).tolist() == [65504.0, np.inf, -np.inf]
    assert round_to_bfloat16(np.float32([3.4e38])).tolist() == [np.inf]


def test_a_strided_view_is_rounded_as_its_numbers() -> None:
    x = np.arange(24, dtype=np.float32).reshape(4, 6) * np.float32(1.2345)
    np.testing.assert_array_equal(round_to_bfloat16(x.T[::2]), round_to_bfloat16(x).T[::2])
